"""Serve one response as fast as asyncio allows: `python -m benchmarks.cdn BYTES [CERTIFICATE KEY]`.

The response is an image of that size, or a task's JSON for 0 bytes. The server prints its URL, and ends when its
standard input closes.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import zlib

_TASK = b"""{"code": 0, "message": "SUCCEED", "request_id": "8f0a1c2e-52b1-4a6d-9a55-5d8f0e9d6c21", "data": {"task_id":
 "830895211326457236", "task_status": "processing", "task_status_msg": "", "task_info": {"external_task_id": "r1-g1"},
 "created_at": 1790000000000, "updated_at": 1790000000000}}"""


def image(size: int) -> bytes:
    """Return a PNG of about `size` bytes, most of which are a chunk of filler."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = chunk(b"IHDR", bytes((0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0)))
    filler = (b"not a pattern that disks or TLS could shorten " + bytes(range(256))) * (size // 302 + 1)
    body = [chunk(b"IDAT", zlib.compress(b"\0\0")), chunk(b"fiLl", filler[:size])]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(body) + chunk(b"IEND", b"")


class Server(asyncio.Protocol):
    """Connection on which every request head gets the response."""

    def __init__(self, response: bytes) -> None:
        self._response = response
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        while b"\r\n\r\n" in self._head:
            _, _, self._head = self._head.partition(b"\r\n\r\n")
            self._transport.write(self._response)


async def main(size: str, certificate: str = "", key: str = "") -> None:
    """Serve until standard input closes."""
    body = image(int(size)) if int(size) else _TASK
    kind = "image/png" if int(size) else "application/json"
    head = f'HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nETag: "1"\r\nContent-Length: {len(body)}\r\n\r\n'
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if context:
        context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(head.encode() + body), "127.0.0.1", 0, ssl=context)
    print(f"http{'s' if context else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
