package testenv

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Layout is where a node lies on the machine. It does not change.
type Layout struct {
	Name         string // unique on the machine, at most 15 characters
	Dir          string
	Root         string
	State        string
	LogDir       string
	NRISocket    string // of NRI plugins, with Options.NRI
	Socket       string // path of the CRI socket
	Endpoint     string // the same as unix:// URL
	CNIConfDir   string
	CNIBinDir    string
	LeaseDir     string
	CertsDir     string
	CgroupParent string // for PodSandboxConfig.linux.cgroup_parent
	Repo         string // root of the repository
}

// newLayout chooses the node's name.
func newLayout(repo string) Layout {
	var b [3]byte
	rand.Read(b[:])
	l := Layout{Name: "csb" + hex.EncodeToString(b[:]), Repo: repo, CNIBinDir: filepath.Join(repo, "bin", "cni")}
	// The control socket of a sandbox lies several directories deep in the state
	// directory and a socket's path is limited to 107 bytes, so a long TMPDIR is
	// not obeyed.
	tmp := os.TempDir()
	if len(tmp) > len("/var/tmp") {
		tmp = "/tmp"
	}
	l.Dir = filepath.Join(tmp, l.Name)
	l.Root = filepath.Join(l.Dir, "root")
	l.State = filepath.Join(l.Dir, "run")
	l.LogDir = filepath.Join(l.Dir, "logs")
	l.Socket = filepath.Join(l.State, "cri.sock")
	l.Endpoint = "unix://" + l.Socket
	l.NRISocket = filepath.Join(l.Dir, "nri") // short, see hack/containerd
	l.CNIConfDir = filepath.Join(l.Dir, "cni", "conf")
	l.LeaseDir = filepath.Join(l.Dir, "cni", "leases")
	l.CertsDir = filepath.Join(l.Dir, "certs.d")
	l.CgroupParent = "/" + l.Name
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		l.CgroupParent = l.Name + ".slice"
	}
	return l
}

func (l Layout) crictlConfig() string { return filepath.Join(l.Dir, "crictl.yaml") }
func (l Layout) configFile() string   { return filepath.Join(l.Dir, "config.toml") }
func (l Layout) daemonLog() string    { return filepath.Join(l.Dir, "daemon.log") }

// makeDirs makes the node's directories, and the files of configuration in them.
// After an error nothing is left.
func (l Layout) makeDirs(config string) error {
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		return fmt.Errorf("make test environment: %w", err)
	}
	for _, d := range []string{l.Root, l.State, l.LogDir, l.CNIConfDir, l.LeaseDir, l.CertsDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			os.RemoveAll(l.Dir)
			return fmt.Errorf("make test environment: %w", err)
		}
	}
	// Without files of their own crictl and the daemon read the machine's.
	yaml := fmt.Sprintf("runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: 60\n", l.Endpoint, l.Endpoint)
	for path, text := range map[string]string{l.crictlConfig(): yaml, l.configFile(): config} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			os.RemoveAll(l.Dir)
			return fmt.Errorf("make test environment: %w", err)
		}
	}
	return nil
}
