"""The simulator as a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator

import msgspec

from worker import errors
from worker.simulator import billing, control
from worker.simulator import settings as simulator_settings

#: How long a request for the bill may take. A million calls are read in pieces, each far quicker.
_TIMEOUT_S = 60.0
_STOP_S = 10.0


class Simulator:
    """A running simulator, its own process or one that somebody else started."""

    def __init__(self, url: str) -> None:
        self.url = url  #: base of the providers' URLs: `url + "/groq"`

    def bill(self, provider: str | None = None) -> billing.Bill:
        """The sums of all calls that were answered up to now."""
        with self._request("GET", _of("bill", provider)) as answer:
            return msgspec.json.decode(answer.read(), type=billing.Bill)

    def calls(self, provider: str | None = None) -> Iterator[billing.Call]:
        """Every call that was answered up to now, in that order."""
        decoder = msgspec.json.Decoder(billing.Call)
        with self._request("GET", _of("bill/calls", provider)) as answer:
            for line in answer:
                yield decoder.decode(line)

    def settings(self) -> simulator_settings.Settings:
        with self._request("GET", "settings") as answer:
            return simulator_settings.parse(answer.read())

    def set(self, settings: simulator_settings.Settings) -> None:
        """Change everything, for the calls from now on."""
        # What was left out must stay so: it is taken from the entry for all providers.
        body = settings.model_dump_json(exclude_unset=True).encode()
        with self._request("PUT", "settings", body):
            pass

    def set_faults(self, *texts: str) -> None:
        """Let exactly these faults happen from now on, each as in `groq:server_error=1.0`; none for none.

        Raises:
            SettingsError: a text is not a fault (see `worker.simulator.settings.parse_fault`).
        """
        self.set(self.settings().with_faults(texts))

    @contextlib.contextmanager
    def _request(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request(method, control.PREFIX + path, body)
                answer = connection.getresponse()
            except OSError as e:
                raise errors.ServerError(
                    f"The simulator at {self.url} does not answer: {e}. Start it again."
                ) from e
            with answer:
                if answer.status >= 400:
                    raise errors.SettingsError(json.load(answer)["error"])
                yield answer


@contextlib.contextmanager
def running(settings: simulator_settings.Settings | None = None, port: int = 0) -> Iterator[Simulator]:
    """Start a simulator as a process of its own, and stop it at the end. It also ends when this process dies.

    Raises:
        SettingsError: it cannot be started; the message says why.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.simulator", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at the terminal is for the command, which stops us when it is done
    )
    with process:
        assert process.stdin is not None and process.stdout is not None  # they are pipes
        chosen = settings or simulator_settings.Settings()
        process.stdin.write(chosen.model_dump_json(exclude_unset=True).encode() + b"\n")
        process.stdin.flush()
        told = process.stdout.readline().decode().strip()
        if not told.startswith("http://"):
            raise errors.SettingsError(told or "The simulator did not start; standard error says why.")
        try:
            yield Simulator(told)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _of(path: str, provider: str | None) -> str:
    return f"{path}?{urllib.parse.urlencode({'provider': provider})}" if provider else path
