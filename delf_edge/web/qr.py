"""The address of the page for phones as a QR code, by segno."""

from __future__ import annotations

import io

import segno


def qr_text(url: str) -> str:
    """The code for a terminal, dark on light whatever the terminal's colours are."""
    out = io.StringIO()
    segno.make(url, micro=False).terminal(out, compact=True)
    return out.getvalue()


def qr_svg(url: str) -> bytes:
    """The code as an SVG picture, with the quiet zone that cameras need."""
    out = io.BytesIO()
    segno.make(url, micro=False, error="m").save(
        out, kind="svg", scale=8, light="white", xmldecl=False, svgclass=None, lineclass=None, omitsize=True
    )
    return out.getvalue()
