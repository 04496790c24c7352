package network

import (
	"testing"
	"time"
)

func TestStatusMemoKeepsAGoodAnswerForAWhile(t *testing.T) {
	var m statusMemo
	if m.fresh("a") {
		t.Error("fresh before the first answer")
	}
	m.good("a")
	if !m.fresh("a") {
		t.Error("a good answer does not count")
	}
	if m.fresh("b") {
		t.Error("the answer counts for another configuration")
	}
	m.asked = time.Now().Add(-statusAge)
	if m.fresh("a") {
		t.Error("an old answer counts")
	}
}
