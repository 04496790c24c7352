package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTableSaysWhatBecameOfEverySpec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	report := `[{"SpecReports":[
{"LeafNodeType":"BeforeSuite","State":"passed"},
{"ContainerHierarchyTexts":["[k8s.io] B"],"LeafNodeType":"It","LeafNodeText":"works | well","State":"passed"},
{"ContainerHierarchyTexts":["[k8s.io] A"],"LeafNodeType":"It","LeafNodeText":"pod with AppArmor","State":"skipped"},
{"ContainerHierarchyTexts":["[k8s.io] C"],"LeafNodeType":"It","LeafNodeText":"breaks","State":"failed","Failure":{"Message":"no\nway"}}]}]`
	if err := os.WriteFile(path, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	specs, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	got := suiteOfCritest.Table(specs, "v1.2.3", "6.1", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	for _, want := range []string{
		"2026-01-02, Linux 6.1", "critest v1.2.3", "**1 passed, 1 failed, 1 skipped**",
		"| A pod with AppArmor | skipped | profiles of the host",
		"| B works \\| well | passed |  |", "| C breaks | failed | no |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if strings.Index(got, "| A pod") > strings.Index(got, "| B works") {
		t.Error("the rows are not in order")
	}
}
