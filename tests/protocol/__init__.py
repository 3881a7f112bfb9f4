"""Frames, masking, compression and events, without I/O."""
