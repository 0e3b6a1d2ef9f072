"""A small identity provider on this machine, for signing in as OpenID Connect says."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "danlu-studio", "the-client-secret"


class Provider:
    """Issues codes and tokens as OpenID Connect says; `change` lets it lie."""

    def __init__(self) -> None:
        self.key, self.other_key = RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "1"})
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {"sub": "42", "preferred_username": "zoe", "email": "zoe@example.org", "email_verified": True}
        self.change: dict[str, Any] = {}
        self.signing: Callable[[dict[str, Any]], str] | None = None
        self.discovery: dict[str, Any] = {}
        self.refuses = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def visit(self, url: str) -> str:
        """What a browser does there: sign in, and be sent back; return the query it is sent back with."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", CLIENT)
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return urlencode({"code": code, "state": asked["state"]})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/authorize?"):
                    self._send_back(dict(parse_qsl(urlsplit(self.path).query)))
                elif self.path == "/keys":
                    self._answer(200, {"keys": [provider.key.as_dict(private=False)]})
                else:
                    names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
                    self._answer(200, {"issuer": provider.url, **{name: f"{provider.url}/{path}" for name, path in names.items()}, **provider.discovery})

            def do_POST(self) -> None:
                form = {name: values[0] for name, values in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
                self._answer(*provider.token(form, self.headers.get("Authorization", "")))

            def _send_back(self, asked: dict[str, str]) -> None:
                query = urlencode({"error": "access_denied", "state": asked["state"]}) if provider.refuses else provider.visit(self.path)
                self.send_response(302)
                self.send_header("Location", f"{asked['redirect_uri']}?{query}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _answer(self, status: int, value: dict[str, Any]) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        return Handler

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Turn a code into an ID token, once, for who knows its secret and its verifier."""
        asked = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        knows_secret = authorization == "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or not knows_secret or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"], **self.claims, **self.change}
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.key) if self.signing is None else self.signing(claims)
        return 200, {"access_token": "at", "token_type": "Bearer", "id_token": token}
