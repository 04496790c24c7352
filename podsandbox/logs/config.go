package logs

import (
	"k8s.io/klog/v2"
)

// Config says where a container's output comes from and goes to. It is derived
// from the container's record and is the same for Create and every Open.
type Config struct {
	// Dir is the directory of this container's streams. It exists, only root can
	// enter it, and nothing else writes to it.
	Dir string

	// LogPath is the CRI log file; empty means that output is discarded.
	LogPath string

	// LogDir is a directory that LogPath lies in, at any depth. Neither LogPath nor
	// what leads to it from there may be a link out of it. Empty means the directory
	// of LogPath.
	LogDir string

	// Stdin asks for a FIFO; without it, stdin is /dev/null. See Streams.Input.
	Stdin bool

	// Terminal says that the container writes to a terminal: there is one stream,
	// and the caller moves to it what is printed there.
	Terminal bool

	// OnError hears of a failure to move output, once until it works again; the
	// pump goes on trying. It may be called from any goroutine. nil logs it.
	OnError func(error)
}

// outputs is the number of streams that the container writes to.
func (c *Config) outputs() int {
	if c.Terminal {
		return 1
	}
	return streamCount
}

func (c *Config) setDefaults() {
	if c.OnError == nil {
		path := c.LogPath
		c.OnError = func(err error) { klog.ErrorS(err, "Container output is held up", "log", path) }
	}
}
