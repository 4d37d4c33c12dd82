"""A picture file's bytes without what describes the picture, for files whose pixels are whole and whose description is damaged."""

import struct

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# JFIF's header and Adobe's tell how colours are stored, so they belong to the pixels.
JPEG_KEPT = {0xE0, 0xEE}
JPEG_APPS, JPEG_COMMENT, JPEG_SCAN = range(0xE0, 0xF0), 0xFE, 0xDA
PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
WEBP_LEFT_OUT = {b"EXIF", b"XMP ", b"ICCP"}
WEBP_FLAGS = 0x20 | 0x08 | 0x04  # Of ICC profile, EXIF and XMP in VP8X.
TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# Tags of the pixels' layout, compression and colours; what else a TIFF file says can be missed.
TIFF_KEPT = {*range(254, 267), *range(273, 282), 284, 292, 293, 317, 320, *range(322, 326), 332, 334, 338, 339, 347, *range(529, 533)} - {
    274
}


def without_metadata(data: bytes) -> bytes:
    """The same picture without EXIF data, profiles, comments and the like; the same bytes if the file is no JPEG, PNG, WebP or TIFF.

    Returns:
        Bytes of the same format, at most as many as were given.
    """
    try:
        return _without_metadata(data)
    except struct.error:
        return data


def _without_metadata(data: bytes) -> bytes:
    if data[:4] in TIFF_ORDERS:
        return _tiff(data, TIFF_ORDERS[data[:4]])
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(PNG):
        return _png(data)
    return _webp(data) if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else data


def _jpeg(data: bytes) -> bytes:
    """Segments up to the first scan are copied, but for those of applications and comments."""
    kept, place = [JPEG], len(JPEG)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        if marker == JPEG_SCAN:
            break
        if not (marker in JPEG_APPS or marker == JPEG_COMMENT) or marker in JPEG_KEPT:
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return b"".join([*kept, data[place:]])


def _png(data: bytes) -> bytes:
    kept, place = [PNG], len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind in PNG_KEPT:
            kept.append(data[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _webp(data: bytes) -> bytes:
    kept, place = [], 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        chunk = data[place:end]
        if kind == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~WEBP_FLAGS]) + chunk[9:]
        if kind not in WEBP_LEFT_OUT:
            kept.append(chunk)
        place = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(data: bytes, order: str) -> bytes:
    """The first directory's entries for the pixels alone, in the place of all of them; offsets in a TIFF file are absolute."""
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    entries = [data[start : start + 12] for start in range(place + 2, place + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in TIFF_KEPT]
    table = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:place] + table + data[place + len(table) :]
