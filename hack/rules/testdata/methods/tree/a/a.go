// Package a has types of many methods.
package a

type Wide struct{}

func (w *Wide) m0()  {}
func (w *Wide) m1()  {}
func (w *Wide) m2()  {}
func (w *Wide) m3()  {}
func (w *Wide) m4()  {}
func (w *Wide) m5()  {}
func (w *Wide) m6()  {}
func (w *Wide) m7()  {}
func (w *Wide) m8()  {}
func (w *Wide) m9()  {}
func (w *Wide) m10() {}
func (w *Wide) m11() {}
func (w *Wide) m12() {}
func (w *Wide) m13() {}
func (w *Wide) m14() {}
func (w *Wide) m15() {}
func (w *Wide) m16() {}
func (w *Wide) m17() {}
func (w *Wide) m18() {}
func (w *Wide) m19() {}
func (w *Wide) m20() {}
func (w *Wide) m21() {}
func (w *Wide) m22() {}
func (w *Wide) m23() {}
func (w *Wide) m24() {}
func (w *Wide) m25() {}
func (w *Wide) m26() {}
func (w *Wide) m27() {}
func (w *Wide) m28() {}
func (w *Wide) m29() {}

type Full struct{}

func (Full) m0()  {}
func (Full) m1()  {}
func (Full) m2()  {}
func (Full) m3()  {}
func (Full) m4()  {}
func (Full) m5()  {}
func (Full) m6()  {}
func (Full) m7()  {}
func (Full) m8()  {}
func (Full) m9()  {}
func (Full) m10() {}
func (Full) m11() {}
func (Full) m12() {}
func (Full) m13() {}
func (Full) m14() {}
func (Full) m15() {}
func (Full) m16() {}
func (Full) m17() {}
func (Full) m18() {}
func (Full) m19() {}
func (Full) m20() {}
func (Full) m21() {}
func (Full) m22() {}
func (Full) m23() {}
func (Full) m24() {}
func (Full) m25() {}
func (Full) m26() {}
func (Full) m27() {}
func (Full) m28() {}
func (Full) m29() {}
func (Full) m30() {}
func (Full) m31() {}
func (Full) m32() {}
func (Full) m33() {}
func (Full) m34() {}
func (Full) m35() {}
func (Full) m36() {}
func (Full) m37() {}
func (Full) m38() {}
func (Full) m39() {}

type List[T any] struct{}

func (l *List[T]) m0()  {}
func (l *List[T]) m1()  {}
func (l *List[T]) m2()  {}
func (l *List[T]) m3()  {}
func (l *List[T]) m4()  {}
func (l *List[T]) m5()  {}
func (l *List[T]) m6()  {}
func (l *List[T]) m7()  {}
func (l *List[T]) m8()  {}
func (l *List[T]) m9()  {}
func (l *List[T]) m10() {}
func (l *List[T]) m11() {}
func (l *List[T]) m12() {}
func (l *List[T]) m13() {}
func (l *List[T]) m14() {}
func (l *List[T]) m15() {}
func (l *List[T]) m16() {}
func (l *List[T]) m17() {}
func (l *List[T]) m18() {}
func (l *List[T]) m19() {}
func (l *List[T]) m20() {}
func (l *List[T]) m21() {}
func (l *List[T]) m22() {}
func (l *List[T]) m23() {}
func (l *List[T]) m24() {}
func (l *List[T]) m25() {}
func (l *List[T]) m26() {}
func (l *List[T]) m27() {}
func (l *List[T]) m28() {}
func (l *List[T]) m29() {}
func (l *List[T]) m30() {}
func (l *List[T]) m31() {}
func (l *List[T]) m32() {}
func (l *List[T]) m33() {}
func (l *List[T]) m34() {}
func (l *List[T]) m35() {}
func (l *List[T]) m36() {}
func (l *List[T]) m37() {}
func (l *List[T]) m38() {}
func (l *List[T]) m39() {}
func (l *List[T]) m40() {}

type Pair[K comparable, V any] struct{}

func (Pair[K, V]) m0()  {}
func (Pair[K, V]) m1()  {}
func (Pair[K, V]) m2()  {}
func (Pair[K, V]) m3()  {}
func (Pair[K, V]) m4()  {}
func (Pair[K, V]) m5()  {}
func (Pair[K, V]) m6()  {}
func (Pair[K, V]) m7()  {}
func (Pair[K, V]) m8()  {}
func (Pair[K, V]) m9()  {}
func (Pair[K, V]) m10() {}
func (Pair[K, V]) m11() {}
func (Pair[K, V]) m12() {}
func (Pair[K, V]) m13() {}
func (Pair[K, V]) m14() {}
func (Pair[K, V]) m15() {}
func (Pair[K, V]) m16() {}
func (Pair[K, V]) m17() {}
func (Pair[K, V]) m18() {}
func (Pair[K, V]) m19() {}
func (Pair[K, V]) m20() {}
func (Pair[K, V]) m21() {}
func (Pair[K, V]) m22() {}
func (Pair[K, V]) m23() {}
func (Pair[K, V]) m24() {}
func (Pair[K, V]) m25() {}
func (Pair[K, V]) m26() {}
func (Pair[K, V]) m27() {}
func (Pair[K, V]) m28() {}
func (Pair[K, V]) m29() {}
func (Pair[K, V]) m30() {}
func (Pair[K, V]) m31() {}
func (Pair[K, V]) m32() {}
func (Pair[K, V]) m33() {}
func (Pair[K, V]) m34() {}
func (Pair[K, V]) m35() {}
func (Pair[K, V]) m36() {}
func (Pair[K, V]) m37() {}
func (Pair[K, V]) m38() {}
func (Pair[K, V]) m39() {}
func (Pair[K, V]) m40() {}
func (Pair[K, V]) m41() {}
