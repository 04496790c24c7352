package testenv

import (
	"crypto/tls"
	"net/http"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// DialSPDY opens a connection of streams to a URL, as the kubelet and kubectl do.
// The caller closes it. protocol is the one of the streams, such as
// v4.channel.k8s.io.
func DialSPDY(url, protocol string, config *tls.Config) (httpstream.Connection, error) {
	rt, err := spdy.NewRoundTripper(config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return rt.NewConnection(resp)
}
