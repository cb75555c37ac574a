"""Pictures as bytes of RGB: decode what users send, change them, encode what we made.

Pillow only. All of it blocks for up to seconds on a large picture: call it in a thread.
"""

from imageloom.images.colors import parse_color
from imageloom.images.decoding import Transparency, decode_picture
from imageloom.images.encoding import Encoded, Format, encode_picture
from imageloom.images.enlarging import enlarge
from imageloom.images.fitting import Fit, fit_picture, resize, resize_picture, resized_size
from imageloom.images.operations import Gravity, adjust, crop, crop_to_ratio, lay_on, with_alpha
from imageloom.images.picture import Picture

__all__ = [
    "Encoded",
    "Fit",
    "Format",
    "Gravity",
    "Picture",
    "Transparency",
    "adjust",
    "crop",
    "crop_to_ratio",
    "decode_picture",
    "encode_picture",
    "enlarge",
    "fit_picture",
    "lay_on",
    "parse_color",
    "resize",
    "resize_picture",
    "resized_size",
    "with_alpha",
]
