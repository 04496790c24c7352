package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cri-sandbox/cri-sandbox/internal/printable"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/leftovers"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/preflight"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

var errNotReady = errors.New("the node is not ready")

// checkFlags are those of check alone.
type checkFlags struct {
	output string // text or json
	repair bool
	boot   bool
}

func checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find out whether this node can run pods; exit 0 when it can",
		Long: "Look at the node and at what an earlier life left on it, and say of each finding how to mend it.\n" +
			"The exit code is 0 when the node is ready, also with warnings, and 1 when it is not.",
		Args: cobra.NoArgs,
	}
	load := daemonFlags(cmd)
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "form of the answer: text or json")
	cmd.Flags().BoolVar(&f.repair, "repair", false, "remove what no record owns; refused while a daemon runs")
	cmd.Flags().BoolVar(&f.boot, "boot", false, "also run a sandbox for a moment")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.output != "text" && f.output != "json" {
			return fmt.Errorf("output %q is neither text nor json", f.output)
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		r, err := check(cmd.Context(), cfg, f)
		if err != nil {
			return err
		}
		if err := r.write(cmd.OutOrStdout(), f.output); err != nil {
			return err
		}
		if !r.Ready {
			return errNotReady
		}
		return nil
	}
	return cmd
}

// report is the answer of check.
type report struct {
	Ready    bool                `json:"ready"`
	Findings []preflight.Finding `json:"findings"`
	Left     []leftover          `json:"leftovers"`
}

// leftover is what no record owns, and what became of it.
type leftover struct {
	leftovers.Leftover
	Mend    string `json:"mend,omitempty"`
	Removed bool   `json:"removed"`
	Err     string `json:"error,omitempty"`
}

// check looks at everything. It holds the daemon's locks while it repairs.
func check(ctx context.Context, cfg config, f checkFlags) (report, error) {
	if f.repair {
		for flag, dir := range map[string]string{"root": cfg.Root, "state": cfg.State} {
			lock, err := lockDirectory(dir, flag)
			if err != nil {
				return report{}, fmt.Errorf("repair: %w", err)
			}
			defer lock.Close()
		}
	}
	cni, err := network.NewCNI(network.Options{
		ConfDir: cfg.CNI.ConfDir, BinDirs: cfg.CNI.BinDirs, CacheDir: filepath.Join(cfg.Root, "cni"),
		Timeout: cfg.Timeouts.Network.Duration,
	})
	if err != nil {
		return report{}, fmt.Errorf("open network: %w", err)
	}
	defer cni.Close()
	r := report{Findings: preflight.Run(ctx, preflight.Options{
		Root: cfg.Root, State: cfg.State, Listen: strings.TrimPrefix(cfg.Listen, "unix://"),
		StreamAddress: cfg.Streaming.Address, StreamPort: cfg.Streaming.Port, CNI: cni, Boot: f.boot,
	})}
	damaged, err := damagedRecords(cfg.paths())
	if err != nil {
		return report{}, err
	}
	r.Findings = append(r.Findings, damaged...)
	r.Ready = preflight.Ready(r.Findings)
	r.Left, err = findLeftovers(ctx, leftovers.Config{Paths: cfg.paths(), CNI: cni, Engines: finders}, f.repair)
	return r, err
}

func damagedRecords(paths layout.Paths) ([]preflight.Finding, error) {
	damaged, err := record.Damaged(paths.Records())
	if err != nil {
		return nil, err
	}
	var all []preflight.Finding
	for _, path := range damaged {
		all = append(all, preflight.Finding{
			Check: "records", Level: preflight.Warning, Message: "a damaged record was set aside in " + path,
			Mend: "Look at it, report what you find, and remove the directory.",
		})
	}
	return all, nil
}

func findLeftovers(ctx context.Context, c leftovers.Config, repair bool) ([]leftover, error) {
	found, err := leftovers.Scan(c)
	if err != nil {
		return nil, err
	}
	all := make([]leftover, len(found))
	for i, l := range found {
		all[i] = leftover{Leftover: l, Mend: "Start the daemon, or run check with --repair."}
	}
	if !repair {
		return all, nil
	}
	for i, o := range leftovers.Repair(ctx, found) {
		all[i].Removed = o.Err == nil
		all[i].Mend = ""
		if o.Err != nil {
			all[i].Err = o.Err.Error()
			all[i].Mend = "Remove what the error names, and run this again."
		}
	}
	return all, nil
}

func (r report) write(w io.Writer, form string) error {
	if form == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	var b strings.Builder
	line := func(level, check, message, mend string) {
		fmt.Fprintf(&b, "%-8s %-11s %s\n", level, check, printable.Line(message))
		if mend != "" {
			fmt.Fprintf(&b, "%20s → %s\n", "", printable.Line(mend))
		}
	}
	for _, f := range r.Findings {
		line(string(f.Level), f.Check, f.Message, f.Mend)
	}
	for _, l := range r.Left {
		level, message := "left", l.What
		if l.Removed {
			level = "removed"
		} else if l.Err != "" {
			level, message = "stays", l.What+": "+l.Err
		}
		line(level, string(l.Kind), message, l.Mend)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
