package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// hostsFile is what a hosts.toml may hold, as containerd documents it. It is used
// to check a file only; the library reads it again.
type hostsFile struct {
	hostSettings
	Server string                  `toml:"server"`
	Host   map[string]hostSettings `toml:"host"`
}

type hostSettings struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// maxHostsFile bounds a hosts.toml, in bytes.
const maxHostsFile = 1 << 20

// checkHostsFile refuses a hosts.toml that the library would not take as it
// stands. The library logs a file that it cannot read and goes to the registry
// itself, which may be just what the file forbids, and overlooks keys that it
// does not know. Nor does it look at what it opens, here or by the names of
// certificates. Errors are errdefs.ErrFailedPrecondition, and quote nothing of
// the file, which may hold secrets, but these names.
func checkHostsFile(path string) error {
	blob, err := regular.Read(path, maxHostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read registry configuration: %v: %w", err, errdefs.ErrFailedPrecondition)
	}
	f, err := parseHosts(blob)
	if err != nil {
		return fmt.Errorf("registry configuration %s is not valid (%v): %w", path, err, errdefs.ErrFailedPrecondition)
	}
	dir := filepath.Dir(path)
	names := f.certificates()
	if len(blob) == 0 {
		if names, err = dockerCertificates(dir); err != nil {
			return fmt.Errorf("read registry configuration: %v: %w", err, errdefs.ErrFailedPrecondition)
		}
	}
	return checkCertificates(dir, names)
}

func parseHosts(blob []byte) (f hostsFile, _ error) {
	err := unmarshalHosts(blob, &f)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		row, _ := unknown.Errors[0].Position()
		return f, fmt.Errorf("line %d: unknown key %q", row, strings.Join(unknown.Errors[0].Key(), "."))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := bad.Position()
		return f, fmt.Errorf("line %d is not TOML, or of the wrong type", row)
	}
	if err != nil {
		return f, errors.New("not TOML")
	}
	if err := f.check(f.Server); err != nil {
		return f, err
	}
	tables := hostTables(blob)
	for host, settings := range f.Host {
		if host == "" || !tables[host] {
			return f, fmt.Errorf("host %q does not stand in a table of its own, [host.\"https://…\"]", host)
		}
		if err := settings.check(host); err != nil {
			return f, fmt.Errorf("host %q: %w", host, err)
		}
	}
	return f, nil
}

func unmarshalHosts(blob []byte, f *hostsFile) error {
	return toml.NewDecoder(bytes.NewReader(blob)).DisallowUnknownFields().Decode(f)
}

// hostTables names the hosts that the library sees: it takes their order from the
// headers of tables.
func hostTables(blob []byte) map[string]bool {
	found := map[string]bool{}
	var p unstable.Parser
	p.Reset(blob)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var parts []string
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
		}
		if len(parts) >= 2 && parts[0] == "host" {
			found[parts[1]] = true
		}
	}
	return found
}

// check looks at the settings of a server; empty is the registry's own name.
func (s hostSettings) check(server string) error {
	if server != "" {
		// As the library decides it; but it takes "ftp:" for a host.
		if !strings.HasPrefix(server, "http") && !strings.Contains(server, "://") {
			server = "https://" + server
		}
		u, err := url.Parse(server)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("the server is not of the form https://host[:port][/path]")
		}
		if u.User != nil || u.RawQuery != "" {
			return errors.New("the server's address holds more than host and path; credentials come with the pull")
		}
	}
	for _, c := range s.Capabilities {
		if !slices.Contains([]string{"pull", "resolve", "push", "referrers"}, strings.ToLower(c)) {
			return fmt.Errorf("unknown capability %q", c)
		}
	}
	if s.DialTimeout != "" {
		if d, err := time.ParseDuration(s.DialTimeout); err != nil || d <= 0 {
			return errors.New("dial_timeout is not a duration such as 5s")
		}
	}
	if !isStrings(s.CA) {
		return errors.New("ca is neither a path nor a list of paths")
	}
	if !isClient(s.Client) {
		return errors.New("client is neither a path nor a list of paths or pairs of paths")
	}
	for name, value := range s.Header {
		if value == nil || !isStrings(value) {
			return fmt.Errorf("header %q is neither a text nor a list of texts", name)
		}
	}
	return nil
}

// isStrings accepts nothing, a text, or a list of texts.
func isStrings(v any) bool {
	switch v := v.(type) {
	case nil, string:
		return true
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { _, ok := e.(string); return !ok })
	}
	return false
}

// isClient accepts what isStrings does, and pairs in the list.
func isClient(v any) bool {
	list, ok := v.([]any)
	if !ok {
		return isStrings(v)
	}
	return !slices.ContainsFunc(list, func(e any) bool {
		pair, isPair := e.([]any)
		return e == nil || !isStrings(e) || isPair && len(pair) != 2
	})
}
