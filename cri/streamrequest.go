package cri

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// exec returns the URL at which a command is run.
func (s *streamServer) exec(req *runtimeapi.ExecRequest) (string, error) {
	options := &remotecommand.Options{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
	if err := checkStreams(options); err != nil {
		return "", err
	}
	return s.url("exec", func(w http.ResponseWriter, r *http.Request) {
		remotecommand.ServeExec(w, r, executor{s.pods}, "", "", req.GetContainerId(), req.GetCmd(), options,
			s.idle, s.creation, remotecommand.SupportedStreamingProtocols)
	})
}

// attach returns the URL at which a container's streams are.
func (s *streamServer) attach(req *runtimeapi.AttachRequest) (string, error) {
	options := &remotecommand.Options{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
	if err := checkStreams(options); err != nil {
		return "", err
	}
	return s.url("attach", func(w http.ResponseWriter, r *http.Request) {
		remotecommand.ServeAttach(w, r, attacher{s.pods, options.Stdin}, "", "", req.GetContainerId(), options,
			s.idle, s.creation, remotecommand.SupportedStreamingProtocols)
	})
}

// portForward returns the URL at which a pod's ports are.
func (s *streamServer) portForward(req *runtimeapi.PortForwardRequest) (string, error) {
	options := &portforward.V4Options{Ports: req.GetPort()}
	return s.url("portforward", func(w http.ResponseWriter, r *http.Request) {
		portforward.ServePortForward(w, r, forwarder{s.pods, s.forwarded}, req.GetPodSandboxId(), "", options,
			s.idle, s.creation, portforward.SupportedProtocols)
	})
}

// url makes a URL that is good for one use.
func (s *streamServer) url(kind string, serve http.HandlerFunc) (string, error) {
	token, err := s.tokens.issue(kind, serve)
	if err != nil {
		return "", err
	}
	return s.base.JoinPath(kind, token).String(), nil
}

func checkStreams(o *remotecommand.Options) error {
	switch {
	case !o.Stdin && !o.Stdout && !o.Stderr:
		return fmt.Errorf("none of stdin, stdout and stderr is asked for: %w", errdefs.ErrInvalidArgument)
	case o.TTY && o.Stderr: // a terminal has one output
		return fmt.Errorf("stderr is asked for with a terminal, which has stdout alone: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}
