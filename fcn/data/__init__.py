"""Data sets: lists of images and masks, MindRecord files with a manifest, and the exact training reader."""
