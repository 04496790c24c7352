package testenv

import (
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Outcome is how a call ended. A malformed request was no message at all.
type Outcome struct {
	Code      codes.Code
	Malformed bool
}

type callCounts struct {
	mu sync.Mutex
	// By method.
	seen map[string]map[Outcome]int // +checklocks:mu
}

// calls are those of all clients of this process.
var calls = callCounts{seen: map[string]map[Outcome]int{}}

// Calls counts the outcomes of all calls that this process made through a Client,
// by the method's name. A stream counts when it ends, and as OK with each message.
func Calls() map[string]map[Outcome]int {
	calls.mu.Lock()
	defer calls.mu.Unlock()
	out := map[string]map[Outcome]int{}
	for method, outcomes := range calls.seen {
		out[method] = maps.Clone(outcomes)
	}
	return out
}

func note(method string, req any, err error) {
	o := Outcome{Code: status.Code(err)}
	if errors.Is(err, io.EOF) {
		o.Code = codes.OK
	}
	if _, ok := req.(proto.Message); req != nil && !ok {
		o.Malformed = true
	}
	calls.mu.Lock()
	defer calls.mu.Unlock()
	name := path.Base(method)
	if calls.seen[name] == nil {
		calls.seen[name] = map[Outcome]int{}
	}
	calls.seen[name][o]++
}

func noteCall(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	note(method, req, err)
	return err
}

func noteStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		note(method, nil, err)
		return nil, err
	}
	return &notedStream{ClientStream: s, method: method}, nil
}

// notedStream is of one request and many answers.
type notedStream struct {
	grpc.ClientStream
	method string
	req    any
}

// SendMsg implements grpc.ClientStream.
func (s *notedStream) SendMsg(m any) error {
	s.req = m
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream.
func (s *notedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	note(s.method, s.req, err)
	return err
}
