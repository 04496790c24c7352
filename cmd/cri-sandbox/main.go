// Command cri-sandbox is a Kubernetes CRI runtime that runs every pod in a gVisor
// sandbox. It wires the packages together; one file holds one verb.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program, and returns its exit code. What it prints and logs is
// printable.
func run(args []string, stdout, stderr io.Writer) int {
	setUpLog(stderr)
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(printer{stdout})
	cmd.SetErr(printer{stderr})
	if err := cmd.Execute(); err != nil {
		// Indented, no line of an error looks like one of the program's own.
		fmt.Fprintln(printer{stderr}, "cri-sandbox:", strings.ReplaceAll(err.Error(), "\n", "\n\t"))
		return 1
	}
	return 0
}

func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "cri-sandbox",
		Short:         "Kubernetes CRI runtime that runs every pod in a gVisor sandbox",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(serveCommand(), checkCommand(), debugCommand(), configCommand(), versionCommand())
	return cmd
}
