package image

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// Credentials for a registry, as the kubelet sends them. One of username with
// password, Auth, IdentityToken and RegistryToken counts, in this order.
type Credentials struct {
	Username, Password string
	Auth               string // base64 of "username:password"
	ServerAddress      string // host they are for; empty: the one in the image's name
	IdentityToken      string // to be changed into an access token
	RegistryToken      string // sent as it is, as a bearer token
}

// keychain answers which secret a host may see. There is one host at most:
// neither mirrors nor hosts that a registry redirects to learn anything.
type keychain struct {
	host             string // canonical
	username, secret string // username empty: secret is an identity token
	bearer           string
}

// newKeychain checks the credentials given for an image of a registry. Malformed
// ones are errdefs.ErrInvalidArgument, without a word of their content.
func newKeychain(c *Credentials, registry string) (*keychain, error) {
	if c == nil || *c == (Credentials{}) {
		return &keychain{}, nil
	}
	k := &keychain{host: canonicalHost(registry)}
	if c.ServerAddress != "" {
		host, err := addressHost(c.ServerAddress)
		if err != nil {
			return nil, err
		}
		k.host = canonicalHost(host)
	}
	switch {
	case c.Username != "":
		k.username, k.secret = c.Username, c.Password
	case c.Auth != "":
		plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(c.Auth))
		if err != nil {
			if plain, err = base64.RawStdEncoding.DecodeString(strings.TrimSpace(c.Auth)); err != nil {
				return nil, fmt.Errorf("registry credentials: auth is not base64: %w", errdefs.ErrInvalidArgument)
			}
		}
		var ok bool
		// Some tools pad the decoded text with zero bytes.
		if k.username, k.secret, ok = strings.Cut(strings.TrimRight(string(plain), "\x00"), ":"); !ok || k.username == "" {
			return nil, fmt.Errorf("registry credentials: auth is not username:password: %w", errdefs.ErrInvalidArgument)
		}
	case c.IdentityToken != "":
		k.secret = c.IdentityToken
	case c.RegistryToken != "":
		k.bearer = c.RegistryToken
	}
	return k, nil
}

// basic answers the authorizer: the secret for a host, or nothing.
func (k *keychain) basic(host string) (username, secret string, _ error) {
	if !k.isFor(host) {
		return "", "", nil
	}
	return k.username, k.secret, nil
}

// secrets are the texts that must not appear anywhere.
func (k *keychain) secrets() []string {
	var list []string
	for _, s := range []string{k.secret, k.bearer} {
		if s != "" {
			list = append(list, s)
		}
	}
	if k.username != "" {
		list = append(list, base64.StdEncoding.EncodeToString([]byte(k.username+":"+k.secret)))
	}
	return list
}

func (k *keychain) isFor(host string) bool {
	return k.host != "" && canonicalHost(host) == k.host
}

// addressHost takes the host out of what is written for servers: a host, or a
// URL such as https://index.docker.io/v1/.
func addressHost(address string) (string, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("registry credentials: server address is not valid: %w", errdefs.ErrInvalidArgument)
	}
	return u.Host, nil
}

// canonicalHost makes the spellings of one registry equal.
func canonicalHost(host string) string {
	host = strings.ToLower(host)
	if h, port, err := net.SplitHostPort(host); err == nil && port == "443" {
		host = h
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}
