package a_test

type Split struct{}

func (Split) m30() {}
func (Split) m31() {}
func (Split) m32() {}
func (Split) m33() {}
func (Split) m34() {}
func (Split) m35() {}
func (Split) m36() {}
func (Split) m37() {}
func (Split) m38() {}
func (Split) m39() {}
func (Split) m40() {}
func (Split) m41() {}
func (Split) m42() {}
func (Split) m43() {}
func (Split) m44() {}
func (Split) m45() {}
func (Split) m46() {}
func (Split) m47() {}
func (Split) m48() {}
func (Split) m49() {}
func (Split) m50() {}
func (Split) m51() {}
func (Split) m52() {}
func (Split) m53() {}
func (Split) m54() {}
func (Split) m55() {}
func (Split) m56() {}
func (Split) m57() {}
func (Split) m58() {}
func (Split) m59() {}
