// Command bench measures a CRI endpoint, or two in turn, over gRPC alone: what it
// measures of one runtime it measures of any other. It prints a table, and JSON
// with --json.
//
// With --local it sets a node up (hack/testenv) and measures the daemon of this
// repository; `make bench` does that. --vs-config sets a second one up whose daemon
// has another configuration, and measures both in turn.
//
// What the numbers mean:
//
//   - A duration is the median and the 90th percentile of --n runs, from the
//     client's side of the socket.
//   - "pod ready" is from the call of RunPodSandbox until the first line of the
//     pod's container is in its log file, looked for each half millisecond.
//   - "pods a minute" counts whole lives: ready, stopped, removed, with so many
//     workers.
//   - The list and stats calls are measured while --pods pods run.
//   - "memory a pod" sums Pss of /proc/PID/smaps_rollup over the processes that
//     were started while those pods were made, divided by their number. Pss
//     divides a shared page among those who map it. --pss-match narrows the
//     processes to those whose program or arguments match, and their descendants;
//     without it everything that starts on the machine meanwhile counts.
//   - "pull" is unpacked bytes a second, of an image that is not on the node.
//   - "log throughput" is what a container printed, divided by the time from its
//     first to its last line in the log file.
//   - The rows of files are of a program in a container, filework, on its root file
//     system: the mean of --files calls, or all of the large file, and of that the
//     median of seven new containers, one of each target in turn. To create is to
//     open, write 100 bytes and close; to read is to open, read once and close. "A
//     file of the image" is one that the container has not changed, "first time" is
//     when the container looks at it first. The large file is written and read a
//     megabyte a call, and not flushed.
//   - The rows of TCP are of a program in a pod, network, and of bench on the node,
//     which connects to it: one connection for each row, --net-seconds of one
//     direction at a time, or so long of one byte there and back; the median of
//     seven new pods, one of each target in turn.
//   - "disk of an idle pod" is by how many bytes, in blocks, --root has grown when a
//     container is running that has written nothing.
//   - "restart" is from the start of a daemon whose forerunner was killed with
//     SIGKILL until Status is ready and every pod is listed.
//
// It owns every pod that it makes and removes them also after a failure or Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// options are the flags.
type options struct {
	endpoint, imageEndpoint string
	vs, vsImageEndpoint     string
	handler, vsHandler      string
	local                   bool

	// vsConfig and vsBinary make a second local daemon the second target.
	vsConfig, vsBinary string

	image        string
	n, pods      int
	workers      string
	pull         string
	pullBytes    int64
	logMB        int
	filesImage   string
	files        int
	fileMB       int
	netSeconds   int
	podLogDir    string
	cgroupParent string
	pssMatch     string
	vsPSSMatch   string
	daemonCmd    string
	daemonPID    string

	only     string
	jsonFile string

	programs programs // no flag, they are built
}

func parseFlags(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.local, "local", false, "measure bin/cri-sandbox on temporary directories; needs root")
	fs.StringVar(&o.endpoint, "endpoint", "unix:///run/cri-sandbox/cri-sandbox.sock", "CRI endpoint to measure")
	fs.StringVar(&o.imageEndpoint, "image-endpoint", "", "CRI image endpoint; empty is --endpoint")
	fs.StringVar(&o.handler, "runtime-handler", "", "runtime handler of the pods")
	fs.StringVar(&o.vs, "vs", "", "second CRI endpoint, measured in turn, for ratios")
	fs.StringVar(&o.vsImageEndpoint, "vs-image-endpoint", "", "image endpoint of --vs; empty is --vs")
	fs.StringVar(&o.vsHandler, "vs-runtime-handler", "", "runtime handler of the pods of --vs")
	fs.StringVar(&o.vsConfig, "vs-config", "", "with --local: configuration, as TOML, of a second daemon that is measured in turn, for ratios")
	fs.StringVar(&o.vsBinary, "vs-binary", "", "with --local: another build of the daemon, which is measured in turn, for ratios")
	fs.StringVar(&o.image, "image", "", "image with a shell; needed without --local")
	fs.IntVar(&o.n, "n", 30, "runs of each call that makes or removes something")
	fs.IntVar(&o.pods, "pods", 50, "pods that run while lists, stats, memory and restart are measured")
	fs.StringVar(&o.workers, "workers", "1,5,10", "numbers of workers for pods a minute")
	fs.StringVar(&o.pull, "pull", "", "image to pull; with --local one is made")
	fs.Int64Var(&o.pullBytes, "pull-bytes", 0, "its unpacked size in bytes; 0 takes the runtime's word")
	fs.IntVar(&o.logMB, "log-mb", 256, "megabytes that a container prints")
	fs.StringVar(&o.filesImage, "files-image", "", "image with a shell whose files are looked at; empty is --image, with --local one is made")
	fs.IntVar(&o.files, "files", 2000, "small files that a container makes")
	fs.IntVar(&o.fileMB, "file-mb", 256, "megabytes of the large file that a container makes")
	fs.IntVar(&o.netSeconds, "net-seconds", 3, "seconds that a TCP connection transfers in each direction")
	fs.StringVar(&o.podLogDir, "pod-log-dir", "", "directory for container logs; empty is a temporary one")
	fs.StringVar(&o.cgroupParent, "cgroup-parent", "", "cgroup parent of the pods")
	fs.StringVar(&o.pssMatch, "pss-match", "", "pattern of the processes that belong to pods")
	fs.StringVar(&o.vsPSSMatch, "vs-pss-match", "", "the same for --vs")
	fs.StringVar(&o.daemonCmd, "daemon-cmd", "", "shell command that starts the daemon, for restart")
	fs.StringVar(&o.daemonPID, "daemon-pid", "", "file with the daemon's pid, for restart")
	fs.StringVar(&o.only, "only", "", "comma-separated choice of: "+strings.Join(scenarioNames(), ","))
	fs.StringVar(&o.jsonFile, "json", "", "file to write the results to as JSON")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unknown argument %q", fs.Arg(0))
	case o.n < 1 || o.pods < 1 || o.logMB < 1 || o.files < 1 || o.fileMB < 1 || o.netSeconds < 1:
		return o, errors.New("--n, --pods, --log-mb, --files, --file-mb and --net-seconds must be at least 1")
	case o.vsLocal() && (!o.local || o.vs != ""):
		return o, errors.New("--vs-config and --vs-binary go with --local and without --vs")
	case !o.local && o.image == "":
		return o, errors.New("--image is needed without --local")
	case (o.daemonCmd == "") != (o.daemonPID == ""):
		return o, errors.New("--daemon-cmd and --daemon-pid go together")
	}
	for _, name := range split(o.only) {
		if !slices.Contains(scenarioNames(), name) {
			return o, fmt.Errorf("--only: no measurement is called %q, there are %s", name, strings.Join(scenarioNames(), ", "))
		}
	}
	if !o.local && o.filesImage == "" {
		o.filesImage = o.image
	}
	_, err := ints(o.workers)
	return o, err
}

func main() {
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	targets, done, err := open(ctx, &o)
	defer func() { err = errors.Join(err, done()) }()
	if err != nil {
		return err
	}
	report := newReport(targets)
	for _, s := range scenarios {
		if !wanted(o.only, s.name) {
			continue
		}
		all, err := s.measure(ctx, o, targets)
		for i, results := range all {
			report.add(i, merge(results))
		}
		if err != nil {
			report.print(os.Stdout)
			return err
		}
	}
	report.print(os.Stdout)
	if o.jsonFile == "" {
		return nil
	}
	return report.write(o.jsonFile)
}
