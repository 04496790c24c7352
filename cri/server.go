// Package cri is the gRPC surface: each method validates what only the edge can
// see, makes one call, and converts the answer. It owns the listening socket, the
// interceptors and the table of error codes, and no state of pods or images.
//
// CRI v1 of k8s.io/cri-api v0.37 is the specification; a method that is not
// written here answers Unimplemented by name.
package cri

import (
	"context"
	"net"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox"
)

// maxMessage is the size of the largest request and answer: the kubelet's limit.
const maxMessage = 16 << 20

// maxCalls bounds the requests that run at once for one connection; more wait. It
// is for a client that has lost count: who may connect is root on the node, and is
// not kept from anything by limits.
const maxCalls = 1000

// Options is what a Server needs.
type Options struct {
	Pods    *podsandbox.Manager
	Images  *image.Store
	Network *network.CNI
	Version string // of the daemon
	Systemd bool   // the cgroup driver to announce
	// Info is shown by a verbose Status: JSON documents by name.
	Info map[string]string
	// Features are what each runtime handler has.
	Features map[string]*runtimeapi.RuntimeHandlerFeatures

	Streaming StreamingOptions
}

// Server answers CRI, and serves the streams that it gives URLs of.
type Server struct {
	grpc    *grpc.Server
	streams *streamServer
}

// New makes a server and opens the port of its streams; Serve runs it, and Stop
// must be called.
func New(opts Options) (*Server, error) {
	streams, err := listenStreams(opts.Streaming, opts.Pods.Streams)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxCalls),
		grpc.ChainUnaryInterceptor(interceptUnary), grpc.ChainStreamInterceptor(interceptStream),
	)
	runtimeapi.RegisterRuntimeServiceServer(s, &runtimeService{opts: opts, streams: streams})
	runtimeapi.RegisterImageServiceServer(s, &imageService{opts: opts})
	return &Server{grpc: s, streams: streams}, nil
}

// Serve answers on l until Stop. It owns l.
func (s *Server) Serve(l net.Listener) error {
	go s.streams.serve()
	return s.grpc.Serve(l)
}

// Stop ends all streams, and lets running requests end, for at most so long.
func (s *Server) Stop(drain time.Duration) {
	s.streams.stop()
	timer := time.AfterFunc(drain, s.grpc.Stop)
	defer timer.Stop()
	s.grpc.GracefulStop()
}

// quiet are methods that are called all the time and change nothing.
func quiet(method string) bool {
	for _, part := range []string{"List", "Status", "Version", "Stats", "FsInfo", "Stream"} {
		if strings.Contains(method, part) {
			return true
		}
	}
	return false
}

// interceptUnary gives errors their code, logs them once, and turns a panic into Internal.
// Requests are not logged: they carry environments and credentials.
func interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	method := filepath.Base(info.FullMethod)
	defer func() {
		if r := recover(); r != nil {
			klog.ErrorS(nil, "Panic in a request", "method", method, "panic", r, "stack", string(debug.Stack()))
			resp, err = nil, status.Errorf(codes.Internal, "%s panicked; the log of the daemon has the stack", method)
		}
		logRequest(method, start, err)
	}()
	resp, err = handler(ctx, req)
	return resp, ToStatus(err)
}

// interceptStream is interceptUnary, for calls that stream.
func interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	method := filepath.Base(info.FullMethod)
	defer func() {
		if r := recover(); r != nil {
			klog.ErrorS(nil, "Panic in a request", "method", method, "panic", r, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "%s panicked; the log of the daemon has the stack", method)
		}
		logRequest(method, start, err)
	}()
	return ToStatus(handler(srv, ss))
}

func logRequest(method string, start time.Time, err error) {
	took := time.Since(start).Round(10 * time.Microsecond)
	switch code := status.Code(err); {
	case code == codes.OK && quiet(method):
		klog.V(4).InfoS("Request", "method", method, "took", took)
	case code == codes.OK:
		klog.V(2).InfoS("Request", "method", method, "took", took)
	case code == codes.NotFound || code == codes.Canceled:
		klog.V(2).InfoS("Request", "method", method, "took", took, "code", code, "err", err)
	default:
		klog.ErrorS(err, "Request failed", "method", method, "took", took, "code", code)
	}
}
