package cri

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzStreamRequest sends any HTTP request to the streaming server. Without a
// token that was given out none of them may be more than refused, and none may make
// the server fail.
func FuzzStreamRequest(f *testing.F) {
	for _, s := range []string{
		"GET /exec/abcdefgh HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
		"POST /attach/abcdefgh HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
		"GET /portforward/x?port=80 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /exec/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /exec/%00%2e%2e HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT /cri/exec/a HTTP/1.0\r\nContent-Length: 9999999999\r\n\r\n", "GET //exec//a HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	server, err := listenStreams(StreamingOptions{Address: "127.0.0.1"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(server.stop)
	// A token that is valid, and that no request may guess.
	if _, err := server.exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"true"}, Stdout: true}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req) // it has no pods: a call of theirs would panic
		if w.Code < 300 || w.Code >= 500 {
			t.Errorf("answered with %d", w.Code)
		}
	})
}
