"""Artifacts: files and folders that never change, kept under the SHA-256 of their content. Knows no database.

A local folder by default, S3, Google Cloud Storage or Azure by URL. Nothing is served that does not match its checksums.
"""

from danlu.artifacts.artifacts import Artifacts, Stored

__all__ = ["Artifacts", "Stored"]
