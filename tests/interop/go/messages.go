// The messages of tests/interop/messages.py, and how this peer says what it sees.

package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

var sizes = []int{0, 1, 125, 126, 65535, 65536, 1_000_000}

func messageOf(kind string, size int) []byte {
	if kind == "text" {
		return []byte(strings.Repeat("é€😀a", size/10) + strings.Repeat("x", size%10))
	}
	data := make([]byte, size)
	for index := range data {
		data[index] = byte(index % 251)
	}
	return data
}

func report(details map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(details); err != nil {
		panic(err)
	}
}

func reportMessage(isText bool, data []byte) {
	kind := "binary"
	if isText {
		kind = "text"
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(data))
	report(map[string]any{"event": "message", "kind": kind, "size": len(data), "sha256": digest})
}

func reportClosed(code int, reason string) {
	report(map[string]any{"event": "closed", "code": code, "reason": reason})
}
