package stats

import (
	"regexp"
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestMetricDescriptors(t *testing.T) {
	form := regexp.MustCompile(`^container_[a-z_]+$`)
	seen := map[string]bool{}
	for _, d := range MetricDescriptors() {
		if seen[d.Name] || !form.MatchString(d.Name) || d.Help == "" {
			t.Errorf("descriptor %v", d)
		}
		seen[d.Name] = true
		keys := map[string]bool{}
		for _, k := range d.LabelKeys {
			if keys[k] {
				t.Errorf("%s has label %s twice", d.Name, k)
			}
			keys[k] = true
		}
		if !slices.Equal(d.LabelKeys[:len(baseLabels)], baseLabels) {
			t.Errorf("%s has labels %v", d.Name, d.LabelKeys)
		}
	}
	for _, m := range metricTable {
		counts := regexp.MustCompile(`_total$|_failcnt$`).MatchString(m.name) && m.name != "container_fs_inodes_total"
		if counts != (m.kind == runtimeapi.MetricType_COUNTER) {
			t.Errorf("%s is a %v", m.name, m.kind)
		}
	}
}

func TestSeriesShareNoLabels(t *testing.T) {
	s := &series{at: 5, base: make([]string, len(baseLabels), 20)}
	s.add(netRxBytes, 1, "eth0")
	s.add(netRxBytes, 2, "eth1")
	s.add(cpuUsage, 3)
	if a, b := s.out[0].LabelValues, s.out[1].LabelValues; a[len(a)-1] != "eth0" || b[len(b)-1] != "eth1" {
		t.Errorf("labels %v and %v", a, b)
	}
	defer func() {
		if recover() == nil {
			t.Error("a metric without its labels was accepted")
		}
	}()
	s.add(netRxBytes, 1)
}
