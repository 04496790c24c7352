package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
)

// connection is one pull's way to a registry and its mirrors.
type connection struct {
	resolver remotes.Resolver
	traffic  *traffic
}

// connect prepares the way to the registry of an image; nothing is sent yet.
// Hosts come from containerd's hosts.toml files, read anew for each pull. A
// loopback registry without configuration is spoken to in TLS, or else in plain
// HTTP; all others in TLS only, unless the configuration says http.
func connect(ctx context.Context, configDir string, keys *keychain, t *traffic) *connection {
	c := &connection{traffic: t}
	options := config.HostOptions{
		Credentials: keys.basic,
		UpdateClient: func(client *http.Client) error {
			client.Transport = c.traffic.through(client.Transport)
			return nil
		},
	}
	if configDir != "" {
		options.HostDir = func(host string) (string, error) {
			found, err := config.HostDirFromRoot(configDir)(host)
			if err != nil {
				return "", err
			}
			return found, checkHostsFile(filepath.Join(found, "hosts.toml"))
		}
	}
	configured := config.ConfigureHosts(ctx, options)
	c.resolver = docker.NewResolver(docker.ResolverOptions{
		Headers: http.Header{"User-Agent": {"cri-sandbox"}},
		// Asked for once to resolve and once to fetch: the second time gets the
		// same clients, so that connections and tokens are used again.
		Hosts: once(func(host string) ([]docker.RegistryHost, error) {
			hosts, err := configured(host)
			if err != nil {
				return nil, err
			}
			for i := range hosts {
				if !keys.isFor(hosts[i].Host) {
					continue
				}
				// A loopback registry may turn out to speak plain HTTP; then
				// there is another transport around ours.
				if _, sure := hosts[i].Client.Transport.(*watchedTransport); sure && hosts[i].Scheme == "https" {
					c.traffic.tlsOnly.Store(true)
				}
				if keys.bearer != "" {
					hosts[i].Authorizer = bearer{token: keys.bearer, host: hosts[i].Host}
				}
			}
			return hosts, nil
		}),
	})
	return c
}

func once(hosts docker.RegistryHosts) docker.RegistryHosts {
	var (
		mu    sync.Mutex
		known = map[string][]docker.RegistryHost{}
	)
	return func(host string) ([]docker.RegistryHost, error) {
		mu.Lock()
		defer mu.Unlock()
		if list, ok := known[host]; ok {
			return list, nil
		}
		list, err := hosts(host)
		if err == nil {
			known[host] = list
		}
		return list, err
	}
}

// bearer authorizes the requests to one host with a token given by the caller.
type bearer struct{ token, host string }

// Authorize implements docker.Authorizer. It is asked about redirects, too.
func (b bearer) Authorize(_ context.Context, req *http.Request) error {
	if strings.EqualFold(req.URL.Host, b.host) {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return nil
}

// AddResponses implements docker.Authorizer: there is nothing else to try.
func (bearer) AddResponses(context.Context, []*http.Response) error {
	return fmt.Errorf("registry token was not accepted: %w", docker.ErrInvalidAuthorization)
}

// refusal reads why a registry refused a request, out of the answer's body.
func refusal(body io.Reader) string {
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.NewDecoder(io.LimitReader(body, 8<<10)).Decode(&answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	// Not trusted: a length that fits an event.
	return shortened(strings.TrimSpace(answer.Errors[0].Code+" "+answer.Errors[0].Message), 200)
}
