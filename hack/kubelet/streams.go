package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"k8s.io/streaming/pkg/httpstream"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// dial opens a SPDY connection to the kubelet's API, as `kubectl` does by way of
// the API server.
func (k *kubelet) dial(path string, query url.Values, protocol string) (httpstream.Connection, error) {
	return testenv.DialSPDY(k.url(path, query), protocol, tlsConfig())
}

// session is the outcome of an exec.
type session struct {
	stdout, stderr string
	code           int
}

// exec runs a command in a container and feeds it stdin. With tty it runs on a
// terminal of 40 rows and 100 columns.
func (k *kubelet) exec(pod, container, stdin string, tty bool, command ...string) (session, error) {
	q := url.Values{"command": command, "output": {"1"}, "input": {"1"}}
	if tty {
		q.Set("tty", "1")
	} else {
		q.Set("error", "1")
	}
	conn, err := k.dial("/exec/default/"+pod+"-"+nodeName+"/"+container, q, "v4.channel.k8s.io")
	if err != nil {
		return session{}, fmt.Errorf("exec in %s: %w", pod, err)
	}
	defer conn.Close()
	return converse(conn, stdin, tty)
}

// converse opens the streams of an exec, writes stdin, and reads to the end.
func converse(conn httpstream.Connection, stdin string, tty bool) (session, error) {
	conn.SetIdleTimeout(time.Minute)
	kinds := []string{"error", "stdin", "stdout", "stderr"}
	if tty {
		kinds = []string{"error", "stdin", "stdout", "resize"}
	}
	streams := map[string]httpstream.Stream{}
	for _, kind := range kinds {
		s, err := conn.CreateStream(http.Header{"streamType": {kind}})
		if err != nil {
			return session{}, fmt.Errorf("open stream %s: %w", kind, err)
		}
		streams[kind] = s
	}
	if tty {
		json.NewEncoder(streams["resize"]).Encode(map[string]int{"Height": 40, "Width": 100})
	}
	var s session
	var wait sync.WaitGroup
	read := func(kind string, into *string) {
		if streams[kind] != nil {
			wait.Go(func() { b, _ := io.ReadAll(streams[kind]); *into = string(b) })
		}
	}
	var answer string
	read("stdout", &s.stdout)
	read("stderr", &s.stderr)
	read("error", &answer)
	if _, err := io.WriteString(streams["stdin"], stdin); err != nil {
		return session{}, fmt.Errorf("write stdin: %w", err)
	}
	if !tty {
		streams["stdin"].Close()
	}
	wait.Wait()
	code, err := exitCode(answer)
	s.code = code
	return s, err
}

// exitCode reads what comes over the error stream at the end.
func exitCode(answer string) (int, error) {
	var status struct {
		Status, Message string
		Details         struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal([]byte(answer), &status); err != nil {
		return 0, fmt.Errorf("decode end of the stream %q: %w", answer, err)
	}
	if status.Status == "Success" {
		return 0, nil
	}
	for _, c := range status.Details.Causes {
		if c.Reason == "ExitCode" {
			var code int
			_, err := fmt.Sscan(c.Message, &code)
			return code, err
		}
	}
	return 0, errors.New(status.Message)
}

// attach follows a container's output until it has the words.
func (k *kubelet) attach(pod, container, words string) (string, error) {
	q := url.Values{"output": {"1"}, "error": {"1"}}
	conn, err := k.dial("/attach/default/"+pod+"-"+nodeName+"/"+container, q, "v4.channel.k8s.io")
	if err != nil {
		return "", fmt.Errorf("attach to %s: %w", pod, err)
	}
	defer conn.Close()
	var stdout httpstream.Stream
	for _, kind := range []string{"error", "stdout", "stderr"} {
		s, err := conn.CreateStream(http.Header{"streamType": {kind}})
		if err != nil {
			return "", fmt.Errorf("open stream %s: %w", kind, err)
		}
		if kind == "stdout" {
			stdout = s
		}
	}
	// A stream cannot be given a deadline; the connection can be closed.
	defer time.AfterFunc(time.Minute, func() { conn.Close() }).Stop()
	return readUntil(stdout, words)
}

// forward sends an HTTP request to a port of a pod and returns the answer's body.
func (k *kubelet) forward(pod string, port int, path string) (string, error) {
	conn, err := k.dial("/portForward/default/"+pod+"-"+nodeName, nil, "portforward.k8s.io")
	if err != nil {
		return "", fmt.Errorf("forward to %s: %w", pod, err)
	}
	defer conn.Close()
	defer time.AfterFunc(time.Minute, func() { conn.Close() }).Stop()
	h := http.Header{"port": {fmt.Sprint(port)}, "requestID": {"1"}}
	h.Set("streamType", "error")
	failed, err := conn.CreateStream(h)
	if err != nil {
		return "", fmt.Errorf("open error stream: %w", err)
	}
	failed.Close() // as kubectl does: nothing is written to it
	h = h.Clone()
	h.Set("streamType", "data")
	data, err := conn.CreateStream(h)
	if err != nil {
		return "", fmt.Errorf("open data stream: %w", err)
	}
	fmt.Fprintf(data, "GET %s HTTP/1.0\r\n\r\n", path)
	data.Close()
	b, err := io.ReadAll(data)
	if err != nil {
		return "", fmt.Errorf("read forwarded answer: %w", err)
	}
	if problem, _ := io.ReadAll(failed); len(problem) > 0 {
		return string(b), fmt.Errorf("forward to %s: %s", pod, problem)
	}
	return string(b), nil
}
