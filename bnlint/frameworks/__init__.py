"""Facts about the frameworks: names, signatures, defaults, conventions. Rules hold no such tables."""
