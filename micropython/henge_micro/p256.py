"""A key pair on P-256 and a certificate request, in plain Python, for boards that have no other way.

Only multiples of the base point are ever needed, so double-and-add on one fixed point is all there is: one to three
seconds on a Pico W, once at joining and once at each renewal. It does not run in constant time (docs/pki.md, Threats).
"""

import hashlib

P = (1 << 256) - (1 << 224) + (1 << 192) + (1 << 96) - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5

_CURVE = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
_KEY_TYPE = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" + _CURVE
_ECDSA_SHA256 = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"
_COMMON_NAME = b"\x06\x03\x55\x04\x03"


def make_key(seed):
    """(private number as 32 bytes, public point as 65 bytes) from 32 bytes that nobody can foretell."""
    secret = int.from_bytes(seed, "big") % (N - 1) + 1
    x, y = _times_base(secret)
    return secret.to_bytes(32, "big"), b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def key_der(secret, point):
    """The private key as SEC1 DER, 121 bytes, as mbedTLS loads it."""
    content = b"\x02\x01\x01" + _tlv(4, secret) + _tlv(0xA0, _CURVE) + _tlv(0xA1, _tlv(3, b"\0" + point))
    return _tlv(0x30, content)


def spki_der(point):
    """SubjectPublicKeyInfo, 91 bytes."""
    return _tlv(0x30, _KEY_TYPE + _tlv(3, b"\0" + point))


def csr_der(secret, point, name, entropy):
    """A certificate request (PKCS#10) for ``name``; ``entropy`` is 32 fresh bytes for the signature's nonce."""
    subject = _tlv(0x30, _tlv(0x31, _tlv(0x30, _COMMON_NAME + _tlv(0x0C, name.encode()))))
    info = _tlv(0x30, b"\x02\x01\x00" + subject + spki_der(point) + b"\xa0\x00")
    return _tlv(0x30, info + _ECDSA_SHA256 + _tlv(3, b"\0" + sign(secret, info, entropy)))


def sign(secret, data, entropy):
    """ECDSA with SHA-256 as DER. The nonce depends on key, data and entropy: weak entropy alone betrays nothing."""
    digest = hashlib.sha256(data).digest()
    nonce = int.from_bytes(hashlib.sha256(entropy + secret + digest).digest(), "big") % (N - 1) + 1
    r = _times_base(nonce)[0] % N
    s = pow(nonce, N - 2, N) * (int.from_bytes(digest, "big") + r * int.from_bytes(secret, "big")) % N
    if not r or not s:
        return sign(secret, data, digest)
    return _tlv(0x30, _integer(r) + _integer(s))


def _times_base(factor):
    """``factor`` times the base point, by double and add in Jacobian coordinates (a = -3)."""
    x, y, z = GX, GY, 1
    bit = 1 << 255
    while not factor & bit:
        bit >>= 1
    while bit > 1:
        bit >>= 1
        delta, gamma = z * z % P, y * y % P
        beta, alpha = x * gamma % P, 3 * (x - delta) * (x + delta) % P
        x, z = (alpha * alpha - 8 * beta) % P, 2 * y * z % P
        y = (alpha * (4 * beta - x) - 8 * gamma * gamma) % P
        if factor & bit:  # never twice the same point, because factor < N
            square = z * z % P
            h, r = (GX * square - x) % P, (GY * square * z - y) % P
            hh = h * h % P
            hhh, v = h * hh % P, x * hh % P
            x = (r * r - hhh - 2 * v) % P
            y, z = (r * (v - x) - y * hhh) % P, z * h % P
    inverse = pow(z, P - 2, P)
    square = inverse * inverse % P
    return x * square % P, y * square * inverse % P


def _integer(number):
    data = number.to_bytes(32, "big").lstrip(b"\0")
    return _tlv(2, b"\0" + data if data[0] & 0x80 else data)


def _tlv(tag, content):
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    if size < 0x100:
        return bytes((tag, 0x81, size)) + content
    return bytes((tag, 0x82, size >> 8, size & 0xFF)) + content
