//go:build !linux

package b

type Twice struct{}

func (Twice) m0()  {}
func (Twice) m1()  {}
func (Twice) m2()  {}
func (Twice) m3()  {}
func (Twice) m4()  {}
func (Twice) m5()  {}
func (Twice) m6()  {}
func (Twice) m7()  {}
func (Twice) m8()  {}
func (Twice) m9()  {}
func (Twice) m10() {}
func (Twice) m11() {}
func (Twice) m12() {}
func (Twice) m13() {}
func (Twice) m14() {}
func (Twice) m15() {}
func (Twice) m16() {}
func (Twice) m17() {}
func (Twice) m18() {}
func (Twice) m19() {}
func (Twice) m20() {}
func (Twice) m21() {}
func (Twice) m22() {}
func (Twice) m23() {}
func (Twice) m24() {}
func (Twice) m25() {}
func (Twice) m26() {}
func (Twice) m27() {}
func (Twice) m28() {}
func (Twice) m29() {}
func (Twice) m30() {}
func (Twice) m31() {}
func (Twice) m32() {}
func (Twice) m33() {}
func (Twice) m34() {}
func (Twice) m35() {}
func (Twice) m36() {}
func (Twice) m37() {}
func (Twice) m38() {}
func (Twice) m39() {}
