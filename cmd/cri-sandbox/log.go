package main

import (
	"flag"
	"io"

	"k8s.io/klog/v2"
)

// setUpLog says where the log goes. klog quotes values of one line, and writes
// those of several as they are, the texts of errors among them; so it is kept from
// its own way to stderr.
func setUpLog(to io.Writer) {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	for name, value := range map[string]string{
		"logtostderr": "false", "stderrthreshold": "FATAL",
		"one_output": "true", // each line once, not also at the levels below its own
	} {
		_ = fs.Set(name, value) // it fails for a wrong name or value alone
	}
	klog.SetOutput(printer{to})
}
