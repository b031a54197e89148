"""What is known of a place: its texts in several languages, its pictures and sounds, its ids elsewhere.

`reader` is what a device uses; everything else is for the tools that edit, and needs sqlite-utils.
"""
