// Package gvisor has the type that is exempt, and needs it no more.
package gvisor

type Sandbox struct{}

func (*Sandbox) m0()  {}
func (*Sandbox) m1()  {}
func (*Sandbox) m2()  {}
func (*Sandbox) m3()  {}
func (*Sandbox) m4()  {}
func (*Sandbox) m5()  {}
func (*Sandbox) m6()  {}
func (*Sandbox) m7()  {}
func (*Sandbox) m8()  {}
func (*Sandbox) m9()  {}
func (*Sandbox) m10() {}
func (*Sandbox) m11() {}
func (*Sandbox) m12() {}
func (*Sandbox) m13() {}
func (*Sandbox) m14() {}
func (*Sandbox) m15() {}
func (*Sandbox) m16() {}
func (*Sandbox) m17() {}
func (*Sandbox) m18() {}
func (*Sandbox) m19() {}
func (*Sandbox) m20() {}
func (*Sandbox) m21() {}
func (*Sandbox) m22() {}
func (*Sandbox) m23() {}
func (*Sandbox) m24() {}
func (*Sandbox) m25() {}
func (*Sandbox) m26() {}
func (*Sandbox) m27() {}
func (*Sandbox) m28() {}
func (*Sandbox) m29() {}
func (*Sandbox) m30() {}
func (*Sandbox) m31() {}
func (*Sandbox) m32() {}
func (*Sandbox) m33() {}
func (*Sandbox) m34() {}
func (*Sandbox) m35() {}
func (*Sandbox) m36() {}
func (*Sandbox) m37() {}
func (*Sandbox) m38() {}
func (*Sandbox) m39() {}
