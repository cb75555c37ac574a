"""Image processing: upscale, cut out, resize, crop, convert, adjust."""
