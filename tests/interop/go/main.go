// Go's WebSocket libraries as peers, with compression: see tests/interop/scenarios.py.
//
//	peer gorilla-server
//	peer gorilla-client URL SCENARIO
//	peer nhooyr-server
//	peer nhooyr-client URL SCENARIO

package main

import (
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	switch os.Args[1] {
	case "gorilla-server":
		serve(handleWithGorilla)
	case "gorilla-client":
		connectWithGorilla(os.Args[2], os.Args[3])
	case "nhooyr-server":
		serve(handleWithNhooyr)
	case "nhooyr-client":
		connectWithNhooyr(os.Args[2], os.Args[3])
	default:
		panic("unknown peer " + os.Args[1])
	}
}

// The end of stdin is the request to end.
func serve(handle http.HandlerFunc) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	report(map[string]any{"event": "listening", "port": listener.Addr().(*net.TCPAddr).Port})
	go http.Serve(listener, handle)
	_, err = io.Copy(io.Discard, os.Stdin)
	check(err)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
