package main

import (
	"context"
	"errors"
	"net/http"

	"nhooyr.io/websocket"
)

// Its own default is 32 KiB.
const readLimit = 2_000_000

func handleWithNhooyr(response http.ResponseWriter, request *http.Request) {
	connection, err := websocket.Accept(response, request, nil)
	if err != nil {
		return // it has answered
	}
	connection.SetReadLimit(readLimit)
	if request.URL.Path == "/close" {
		check(connection.Close(4000, "bye"))
		reportClosed(4000, "bye")
		return
	}
	for {
		kind, data, err := connection.Read(request.Context())
		if err != nil {
			reportEndOfNhooyr(err)
			return
		}
		reportMessage(kind == websocket.MessageText, data)
		check(connection.Write(request.Context(), kind, data))
	}
}

func connectWithNhooyr(url string, scenario string) {
	background := context.Background()
	connection, _, err := websocket.Dial(background, url, nil)
	check(err)
	connection.SetReadLimit(readLimit)
	switch scenario {
	case "text", "binary":
		kind := websocket.MessageBinary
		if scenario == "text" {
			kind = websocket.MessageText
		}
		for _, size := range sizes {
			check(connection.Write(background, kind, messageOf(scenario, size)))
			kind, data, err := connection.Read(background)
			check(err)
			reportMessage(kind == websocket.MessageText, data)
		}
		check(connection.Close(1000, ""))
		reportClosed(1000, "")
	case "close":
		check(connection.Close(4000, "bye"))
		reportClosed(4000, "bye")
	default:
		_, _, err = connection.Read(background)
		reportEndOfNhooyr(err)
	}
}

func reportEndOfNhooyr(err error) {
	var end websocket.CloseError
	if !errors.As(err, &end) {
		panic(err)
	}
	reportClosed(int(end.Code), end.Reason)
}
