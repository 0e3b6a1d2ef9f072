"""Exporters: what files a finished run can become. One file each; found by the registry."""
