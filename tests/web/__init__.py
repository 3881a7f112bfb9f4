"""What a server serves beside WebSockets: routes, pages, files, passwords."""
