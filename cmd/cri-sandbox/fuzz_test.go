package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// FuzzConfig reads configurations of any content. One that is taken is what the
// daemon relies on, and is written and read again to the same.
func FuzzConfig(f *testing.F) {
	var defaults bytes.Buffer
	if err := toml.NewEncoder(&defaults).Encode(defaultConfig()); err != nil {
		f.Fatal(err)
	}
	f.Add(defaults.Bytes())
	f.Add([]byte("root = 'relative'\n"))
	f.Add([]byte("[timeouts]\nnetwork = '-1s'\n"))
	f.Add([]byte("[timeouts]\nsandbox = '0s'\n"))
	f.Add([]byte("[timeouts]\nnetwork = 30\n"))
	f.Add([]byte("[registry]\nmax_concurrent_downloads = 0\n"))
	f.Add([]byte("[streaming]\nport = 65536\n"))
	f.Add([]byte("[streaming]\nport = 99999999999999999999\n"))
	f.Add([]byte("[cni]\nbin_dirs = [[]]\n"))
	f.Add([]byte("listen = 'unix://\x00'\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "config.toml")
		writeFile(t, path, string(text))
		cfg, err := loadConfig(path)
		if err != nil || cfg.validate() != nil {
			return
		}
		for _, d := range []duration{
			cfg.Timeouts.Network, cfg.Timeouts.Sandbox, cfg.Timeouts.PullIdle, cfg.Timeouts.Drain,
			cfg.Streaming.IdleTimeout, cfg.Streaming.CreationTimeout,
		} {
			if d.Duration <= 0 {
				t.Errorf("a timeout of %v is taken", d)
			}
		}
		if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.State) || cfg.Registry.MaxConcurrentDownloads < 1 ||
			cfg.Streaming.Port < 0 || cfg.Streaming.Port > 65535 {
			t.Errorf("taken: %+v", cfg)
		}
		var out bytes.Buffer
		if err := toml.NewEncoder(&out).Encode(cfg); err != nil {
			t.Fatalf("what was taken cannot be shown: %v", err)
		}
		writeFile(t, path, out.String())
		again, err := loadConfig(path)
		if err != nil {
			t.Fatalf("what was shown is not taken: %v\n%s", err, out.String())
		}
		var second bytes.Buffer
		if err := toml.NewEncoder(&second).Encode(again); err != nil || second.String() != out.String() {
			t.Errorf("%v: first\n%s\nthen\n%s", err, out.String(), second.String())
		}
	})
}
