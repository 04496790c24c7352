package rootfs

import (
	"os"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/hostplace"
)

// ReachesSockets tells whether one of the mounts is, or lies in, a path whose sockets
// containers may connect to, whatever mount of the host it goes through: a CSI driver
// gives each pod a mount of its own.
func (b *Builder) ReachesSockets(mounts []*runtimeapi.Mount) bool {
	if len(b.opts.HostSockets) == 0 {
		return false
	}
	var table hostplace.Table
	var allowed []hostplace.Place
	for _, path := range b.opts.HostSockets {
		if p, err := placeOf(&table, path); err == nil { // else it is not there yet
			allowed = append(allowed, p)
		}
	}
	for _, mount := range mounts {
		p, err := placeOf(&table, mount.GetHostPath())
		if err != nil {
			continue
		}
		for _, a := range allowed {
			if _, ok := p.Within(a); ok {
				return true
			}
		}
	}
	return false
}

func placeOf(table *hostplace.Table, path string) (hostplace.Place, error) {
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return hostplace.Place{}, err
	}
	defer f.Close()
	return table.Of(f)
}
