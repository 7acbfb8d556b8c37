// A call of a kind that was made before, from the interpreter's tensors to the interpreter's
// tensors.
#pragma once

#include "combine.h"
#include "dispatch.h"
#include "outputs.h"
#include "tensors.h"

namespace moe {

// The ctypes side is in ../fields.py.
struct Repeat {
    int64_t code;                     // set: why the step returned
    int64_t now;                      // set: address of the Outputs that the call writes
    int64_t torch, shelf;             // addresses: DlTable, Shelf
    int64_t is_combine, call;         // `call`: address of a Dispatch or Combine
    int64_t first_output;             // word of the call that takes the address of the first output
    int64_t rows_before, rows_limit;  // word that takes how many rows are not zero, -1: none does
    Expectation tensors;

    int64_t* words() const { return reinterpret_cast<int64_t*>(call); }
    Outputs& outputs() const { return *reinterpret_cast<Outputs*>(now); }

    // The outputs, and `code`; None when the tensors are not of this kind or their values illegal,
    // and then the peers were told nothing.
    _object* run(_object* given) {
        const auto& table = *reinterpret_cast<const DlTable*>(torch);
        if (!tensors.met_by(given, table, words())) return nothing();
        auto& from = *reinterpret_cast<Shelf*>(shelf);
        Outputs* set;
        try {
            set = from.take();
        } catch (const std::bad_alloc&) {
            return nothing();  // Python tries again, and tells
        }
        _object* made = set->tensors(table);
        from.taken();
        if (!made) return nullptr;
        now = reinterpret_cast<int64_t>(set);
        for (int64_t i = 0; i < set->count; ++i) {
            words()[first_output + i] = set->address(i);
        }
        if (rows_before >= 0) {
            words()[rows_before] = set->rows;
            set->rows = rows_limit;  // should the call fail
        }
        _ts* state = PyEval_SaveThread();
        code = is_combine ? step(*reinterpret_cast<Combine*>(call))
                          : step(*reinterpret_cast<Dispatch*>(call));
        PyEval_RestoreThread(state);
        if (code == kInvalid) {
            if (rows_before >= 0) set->rows = words()[rows_before];
            Py_DecRef(made);
            return nothing();
        }
        if (code == kDone) finished();
        return made;
    }

    // Also to be called when Python has finished what the step left to it.
    void finished() const {
        if (!is_combine) outputs().rows = reinterpret_cast<Dispatch*>(call)->rows_received;
    }

 private:
    _object* nothing() const {
        auto* none = reinterpret_cast<_object*>(tensors.none);
        Py_IncRef(none);
        return none;
    }
};

}  // namespace moe
