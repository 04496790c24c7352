// Command cri-sandbox is a Kubernetes CRI runtime that runs every pod in a gVisor
// sandbox. It wires the packages together; one file holds one verb.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "devel"

func main() {
	if err := rootCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "cri-sandbox:", err)
		os.Exit(1)
	}
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
