// Command cri-sandbox-sentry runs the processes of a gVisor sandbox: the Sentry
// (boot), the servers of its containers' file systems (gofer), and the helper
// that takes /proc away from them (umount). It has no commands for people; the
// daemon embeds it and package podsandbox/gvisor starts it, with descriptors and
// flags that are described there.
//
// It is a module of its own because gVisor and the daemon need versions of
// runtime-spec that do not go together.
package main

import (
	"github.com/google/subcommands"
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
)

func main() {
	registerSeccompPrograms()
	const group = "internal"
	cli.Run(nil, map[util.SubCommand]string{
		new(sentrycmd.Boot):   group,
		new(cmd.Gofer):        group,
		new(sentrycmd.Umount): group,
	}, []subcommands.Command{})
}
