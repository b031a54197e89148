"""A network camera for tests: RTSP with JPEG over interleaved RTP (RFC 2326, 2435), as OpenCV's FFmpeg reads it."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np

_PART = 1200  # bytes of a frame in one packet
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n"


class RtspCamera:
    """Serves one picture over and over, `fps` times a second, until it is closed; `port` 0 takes a free one."""

    def __init__(self, picture: np.ndarray, port: int = 0, fps: float = 10.0) -> None:
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        self._size, self._fps = (picture.shape[1] // 8, picture.shape[0] // 8), fps
        self._tables, self._scan = _tables(jpeg), jpeg[_scan_start(jpeg) : -2]
        self._server = _listen(port)
        self.port = int(self._server.getsockname()[1])
        self._clients: list[socket.socket] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where to watch it."""
        return f"rtsp://127.0.0.1:{self.port}/view"

    def close(self) -> None:
        """As if the cable was pulled."""
        self._closed = True
        for connection in [self._server, *self._clients]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client.makefile("rb") as requests:
            while line := requests.readline().decode():
                method = line.split(" ")[0]
                headers = dict(h.split(": ", 1) for h in iter(lambda: requests.readline().decode().strip(), ""))
                client.sendall(self._answer(method, headers.get("CSeq", "0")))
                if method == "PLAY":
                    for packet in self._packets():
                        client.sendall(packet)

    def _answer(self, method: str, number: str) -> bytes:
        extra = {
            "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
        }.get(method, "Session: 1\r\n")
        return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}\r\n{_SDP if method == 'DESCRIBE' else ''}".encode()

    def _packets(self) -> Iterator[bytes]:
        number = itertools.count()
        for frame in itertools.count():
            for at in range(0, len(self._scan), _PART):
                part = self._scan[at : at + _PART]
                last = 0x80 if at + _PART >= len(self._scan) else 0
                rtp = struct.pack(">BBHII", 0x80, last | 26, next(number) & 0xFFFF, int(frame * 90000 / self._fps), 7)
                jpeg = struct.pack(">IBBBB", at, 1, 255, *self._size)  # type 1 is 4:2:0, Q 255 brings its tables
                jpeg += struct.pack(">BBH", 0, 0, 128) + self._tables if at == 0 else b""
                data = rtp + jpeg + part
                yield struct.pack(">cBH", b"$", 0, len(data)) + data
            if self._closed:
                return
            time.sleep(1 / self._fps)


def _listen(port: int) -> socket.socket:
    """Below the ports that the system gives to clients: one of those may be taken while the camera is gone."""
    while True:
        try:
            return socket.create_server(("127.0.0.1", port or random.randrange(20_000, 32_000)))
        except OSError:
            if port:
                raise


def _tables(jpeg: bytes) -> bytes:
    """The two quantisation tables, 128 bytes."""
    tables, at = b"", 2
    while jpeg[at + 1] != 0xDA:
        length = int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at + 1] == 0xDB:
            body = jpeg[at + 4 : at + 2 + length]
            tables += b"".join(body[i + 1 : i + 65] for i in range(0, len(body), 65))
        at += 2 + length
    return tables


def _scan_start(jpeg: bytes) -> int:
    at = 2
    while jpeg[at + 1] != 0xDA:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
