package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestPullRefusesRegistryConfigurationThatIsNoFile: the library opens whatever is named.
func TestPullRefusesRegistryConfigurationThatIsNoFile(t *testing.T) {
	for name, tc := range map[string]struct{ fifo, hosts string }{
		"hosts.toml":           {"hosts.toml", ""},
		"authority":            {"ca", "ca = \"ca\"\n"},
		"client of a mirror":   {"client", "[host.\"https://m.test\"]\nclient = [\"none\", [\"none\", \"client\"]]\n"},
		"Docker's authority":   {"ca.crt", ""},
		"Docker's certificate": {"client.cert", ""},
		"Docker's key":         {"client.key", ""},
	} {
		t.Run(name, func(t *testing.T) {
			conf := t.TempDir()
			dir := filepath.Join(conf, "example.test")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if tc.hosts != "" {
				hostsToml(t, conf, "example.test", tc.hosts)
			}
			if err := unix.Mkfifo(filepath.Join(dir, tc.fifo), 0o600); err != nil {
				t.Fatal(err)
			}
			s := newStore(t, Options{RegistryConfigDir: conf})
			answer := make(chan error, 1)
			go func() {
				_, err := s.Pull(t.Context(), "example.test/app", nil)
				answer <- err
			}()
			select {
			case err := <-answer:
				if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.fifo+" is not a regular file") {
					t.Errorf("error %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it hangs")
			}
		})
	}
}
