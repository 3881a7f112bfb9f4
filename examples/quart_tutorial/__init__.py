"""What Quart's tutorial makes with WebSockets, made with trio_ws."""
