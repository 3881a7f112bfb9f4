package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

func handleWithGorilla(response http.ResponseWriter, request *http.Request) {
	upgrader := websocket.Upgrader{EnableCompression: true}
	connection, err := upgrader.Upgrade(response, request, nil)
	check(err)
	defer connection.Close()
	if request.URL.Path == "/close" {
		closeGorilla(connection, 4000, "bye")
	}
	for {
		kind, data, err := connection.ReadMessage()
		if err != nil {
			reportEndOfGorilla(err)
			return
		}
		reportMessage(kind == websocket.TextMessage, data)
		check(connection.WriteMessage(kind, data))
	}
}

func connectWithGorilla(url string, scenario string) {
	dialer := websocket.Dialer{EnableCompression: true}
	connection, _, err := dialer.Dial(url, nil)
	check(err)
	defer connection.Close()
	switch scenario {
	case "text", "binary":
		kind := websocket.BinaryMessage
		if scenario == "text" {
			kind = websocket.TextMessage
		}
		for _, size := range sizes {
			check(connection.WriteMessage(kind, messageOf(scenario, size)))
			kind, data, err := connection.ReadMessage()
			check(err)
			reportMessage(kind == websocket.TextMessage, data)
		}
		closeGorilla(connection, 1000, "")
	case "close":
		closeGorilla(connection, 4000, "bye")
	}
	_, _, err = connection.ReadMessage()
	reportEndOfGorilla(err)
}

func closeGorilla(connection *websocket.Conn, code int, reason string) {
	payload := websocket.FormatCloseMessage(code, reason)
	deadline := time.Now().Add(time.Minute)
	check(connection.WriteControl(websocket.CloseMessage, payload, deadline))
}

func reportEndOfGorilla(err error) {
	var end *websocket.CloseError
	if !errors.As(err, &end) {
		panic(err)
	}
	reportClosed(end.Code, end.Text)
}
