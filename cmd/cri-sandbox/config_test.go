package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoadConfigDropInsWinInLexicalOrder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	writeFile(t, path, "root = '/a'\nstate = '/s'\n[timeouts]\nnetwork = '5s'\n")
	writeFile(t, filepath.Join(dir, "config.d", "20.toml"), "root = '/c'\n")
	writeFile(t, filepath.Join(dir, "config.d", "10.toml"), "root = '/b'\nlog_level = 3\n")
	cfg, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Root != "/c" || cfg.State != "/s" || cfg.LogLevel != 3 || cfg.Timeouts.Network.Duration != 5*time.Second {
		t.Errorf("config = %+v", cfg)
	}
	if cfg.Timeouts.Sandbox != defaultConfig().Timeouts.Sandbox {
		t.Errorf("a key that was not given lost its default: %+v", cfg.Timeouts)
	}
}

func TestLoadConfigErrorsNameFileAndLine(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"unknown key":      {"root = '/a'\n\nrooot = '/b'\n", `line 3: unknown key "rooot"`},
		"unknown in table": {"[cni]\nconf = 1\n", `line 2: unknown key "cni.conf"`},
		"wrong type":       {"log_level = 'high'\n", "line 1"},
		"syntax":           {"root = /a\n", "line 1"},
		"a number":         {"[timeouts]\nnetwork = 30\n", `missing unit in duration "30"`}, // the library knows no line
		"negative":         {"[timeouts]\nnetwork = '-1s'\n", "not positive"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			writeFile(t, path, c.content)
			_, err := loadConfig(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("err = %v, want %q and the path in it", err, c.want)
			}
		})
	}
}

func TestValidateRefusesWhatCannotWork(t *testing.T) {
	if err := defaultConfig().validate(); err != nil {
		t.Fatalf("the default is refused: %v", err)
	}
	for name, change := range map[string]func(*config){
		"relative root":   func(c *config) { c.Root = "data" },
		"one directory":   func(c *config) { c.State = c.Root },
		"tcp":             func(c *config) { c.Listen = "tcp://127.0.0.1:1" },
		"no plugins":      func(c *config) { c.CNI.BinDirs = nil },
		"no downloads":    func(c *config) { c.Registry.MaxConcurrentDownloads = 0 },
		"relative socket": func(c *config) { c.Listen = "unix://x.sock" },
		"stream host":     func(c *config) { c.Streaming.Address = "localhost" },
		"stream port":     func(c *config) { c.Streaming.Port = 65536 },
		"half of TLS":     func(c *config) { c.Streaming.TLSCertFile = "/cert.pem" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaultConfig()
			change(&cfg)
			if err := cfg.validate(); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestLoadConfigAbsentFile(t *testing.T) {
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("accepted")
	}
}

func TestConfigDefaultReadsBack(t *testing.T) {
	cmd := rootCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"config", "default"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	writeFile(t, path, out.String())
	if _, err := loadConfig(path); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestLockDirectoryRefusesASecondDaemon(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockDirectory(dir, "root")
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockDirectory(dir, "root")
	if err == nil || !strings.Contains(err.Error(), "--root") {
		t.Fatalf("err = %v, want one that names the flag", err)
	}
	lock.Close()
	again, err := lockDirectory(dir, "root")
	if err != nil {
		t.Fatalf("the lock outlived its owner: %v", err)
	}
	again.Close()
}

// TestLockDirectoryWaits: a child of a daemon that was killed may hold it for a moment.
func TestLockDirectoryWaits(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockDirectory(dir, "root")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { lock.Close() })
	again, err := lockDirectory(dir, "root")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
