"""What a sound file is by its first bytes, and whether its ends hold what it promises.

Pure: bytes in, words out; knows the layouts of wav, flac, ogg, mp4, mp3 and aac, no processes and no files.
Invariant: a container that could name other files (playlists, concat lists) is never recognised.
"""

import struct

HEAD_BYTES = 65_536
TAIL_BYTES = 65_536
"an Ogg page is at most 65,307 bytes, so the last one starts within this"
# Players write one ID3 tag, bad editors two; a file made of tags is no recording.
_MOST_TAGS = 4
_STREAMED_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)


def container_of(head: bytes) -> str | None:
    """ffmpeg's name of the container that starts with these bytes; None if it is none we take."""
    for _ in range(_MOST_TAGS):
        head = head[id3_bytes(head) :]
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mov"
    return {b"fLaC": "flac", b"OggS": "ogg"}.get(head[:4]) or _mpeg_audio(head.lstrip(b"\0"))


def _mpeg_audio(head: bytes) -> str | None:
    """`aac` or `mp3` by the bits of the first frame header (ISO 11172-3 2.4.2.3, 13818-7 6.2)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "aac"
    layer, bitrate, rate = head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return "mp3" if layer != 0 and bitrate != 15 and rate != 3 else None


def id3_bytes(head: bytes) -> int:
    """Size of the ID3v2 tag at the start, 0 if there is none; its length is four seven-bit digits."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for digit in head[6:10]:
        size = size << 7 | digit & 0x7F
    return 10 + size


def shortfall(container: str, head: bytes, tail: bytes, size_bytes: int) -> str:
    """Why a file of `size_bytes` is shorter than its own structure says; empty if it is not.

    `head` and `tail` are its first and last bytes (`HEAD_BYTES`, `TAIL_BYTES`).
    """
    if container == "wav":
        return _wav_shortfall(head, size_bytes)
    if container == "ogg":
        return _ogg_shortfall(tail)
    return ""


def _wav_shortfall(head: bytes, size_bytes: int) -> str:
    """Programs that cannot come back to fill in the size write zero or all ones: those promise nothing."""
    promised = _wav_data(head)
    if promised is None or head[:4] != b"RIFF" or promised[1] in _STREAMED_SIZES:
        return ""
    start, length = promised
    there = max(0, size_bytes - start)
    if there + 1 >= length:
        return ""
    return f"its header promises {length:,} bytes of sound and {there:,} of them are there"


def _wav_data(head: bytes) -> tuple[int, int] | None:
    """Start and length of a wav file's sound; None if it starts behind `head`."""
    position = 12
    while position + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, position)
        if name == b"data":
            return position + 8, length
        position += 8 + length + length % 2
    return None


def _ogg_shortfall(tail: bytes) -> str:
    """The last page must be all there (RFC 3533 section 6: 27 bytes, lengths, their sum)."""
    start = tail.rfind(b"OggS")
    header = tail[start : start + 27]
    if start >= 0 and len(header) == 27:
        table = tail[start + 27 : start + 27 + header[26]]
        if len(table) == header[26] and start + 27 + len(table) + sum(table) <= len(tail):
            return ""
    return "its last page is not complete"
