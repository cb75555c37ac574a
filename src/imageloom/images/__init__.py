"""Pictures as bytes of RGB: decode what users send, encode what we made, fit one to a size.

Pillow only. All of it blocks for up to a second on a large picture: call it in a thread.
"""

from imageloom.images.decoding import decode_picture
from imageloom.images.encoding import Encoded, Format, encode_picture
from imageloom.images.fitting import fit_picture, resize_picture
from imageloom.images.picture import Picture

__all__ = [
    "Encoded",
    "Format",
    "Picture",
    "decode_picture",
    "encode_picture",
    "fit_picture",
    "resize_picture",
]
