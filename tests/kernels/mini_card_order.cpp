// What an order of messages proves and what it does not: kernels that send and take rows over a
// network card.
#include "device/rdma_post.h"
#include "mini.h"

using namespace ascend_moe;

// A row and a flag that says so, in the four ways that suggest themselves. Only a tag, last on the
// row's own queue pair, proves the row.
namespace {

constexpr uint32_t kRowBytes = 3000;
constexpr uint64_t kFlagPlace = kControlBytes, kRowPlace = kControlBytes + 512;

enum class Flag { kTag, kInTheRow, kOnAnotherQueue, kSecondWord };

class Row {
 public:
    Row(GM_ADDR context, GM_ADDR tables, Flag flag) : flag_(flag) {
        window_.Init(context, 0, kLastNone);
        post_.InitBuffers(&pipe_);
        pipe_.InitBuffer(row_, kRowBytes + 8);
        tables_ = reinterpret_cast<uint64_t>(tables);
    }

    void Send() {
        QueuePair pair = post_.Open(tables_, 1, 0), other = post_.Open(tables_, 1, 1);
        const auto row = row_.Get<uint32_t>();
        const bool second = flag_ == Flag::kSecondWord;  // the row is in the flag's own message
        Duplicate(row, 5u, kRowBytes / 4);
        Sync<HardEvent::V_S>();
        if (second) PutFlag(row, 0);
        if (flag_ == Flag::kInTheRow) PutFlag(row, kRowBytes / 4 - 2);
        Sync<HardEvent::S_MTE3>();
        Sync<HardEvent::V_MTE3>();
        const uint64_t place = second ? kFlagPlace : kRowPlace;
        const uint32_t bytes = second ? kBlockBytes : kRowBytes;
        Store(At<uint32_t>(pair.output + place), row, bytes / 4);
        post_.Post(window_, pair, place, place, bytes);
        if (second || flag_ == Flag::kInTheRow) return;
        post_.PostTag(MOE_FLAG("row"), window_, flag_ == Flag::kOnAnotherQueue ? other : pair,
                      kFlagPlace, kFlagPlace, 1);
    }

    // As soon as the flag is there; a row that is not is memory that nobody wrote.
    void Take(GM_ADDR out) {
        const uint64_t behind = kRowPlace + kRowBytes - 8;
        post_.WaitTag(MOE_FLAG("row"), window_, Own(flag_ == Flag::kInTheRow ? behind : kFlagPlace),
                      0, 1);
        const bool second = flag_ == Flag::kSecondWord;
        const uint32_t words = second ? kBlockWords - 2 : kRowBytes / 4 - 2;
        Load(row_.Get<uint32_t>(), At<uint32_t>(Own(second ? kFlagPlace + 8 : kRowPlace)), words);
        Sync<HardEvent::MTE2_MTE3>();
        Store(At<uint32_t>(reinterpret_cast<uint64_t>(out)), row_.Get<uint32_t>(), words);
    }

 private:
    uint64_t Own(uint64_t place) const { return window_.Data(window_.rank, place); }
    void PutFlag(const LocalTensor<uint32_t>& row, uint32_t at) const {
        row.SetValue(at, window_.nonce);
        row.SetValue(at + 1, 1);
    }

    Flag flag_;
    Window window_;
    TPipe pipe_;
    RdmaPost post_;
    Calc row_;
    uint64_t tables_;
};

}  // namespace
#define ROW(name, flag)                                                 \
    MINI_CARD(name##_send) { Row(context, tables, Flag::flag).Send(); } \
    MINI_CARD(name##_take) { Row(context, tables, Flag::flag).Take(out); }
ROW(mini_row_tag, kTag)
ROW(mini_row_flag_in_the_row, kInTheRow)
ROW(mini_row_flag_on_another_queue, kOnAnotherQueue)
ROW(mini_row_second_word_of_the_flag, kSecondWord)

// Records of 600 bytes, each a message with its flag at the head, and an end flag behind them; the
// cores of the receiver take them in turn: the vendor's layered dispatch. A record is there when
// its own flag is and the next one's or the end flag; there are no more when the end flag is set
// and the own one is not. The last step is right only if the end flag was read before the own one,
// which three copies in flight do not promise: vendor, tag v9.1.0-beta.1, mended by 8b4b39be6.
namespace {

constexpr uint32_t kRecords = 5, kRecordBytes = 600, kRecordPitch = 640;
constexpr uint64_t kEndPlace = kControlBytes, kRecordPlace = kControlBytes + 512;

class Records {
 public:
    Records(GM_ADDR context, GM_ADDR tables) {
        window_.Init(context, 0, kLastNone);
        post_.InitBuffers(&pipe_);
        for (Calc* buffer : {&row_, &end_, &own_, &next_}) pipe_.InitBuffer(*buffer, kRecordPitch);
        pair_ = post_.Open(reinterpret_cast<uint64_t>(tables), 1 - window_.rank, 0);
    }

    void Send() {
        for (uint32_t i = 0; i < kRecords; ++i) {
            const auto row = row_.Get<uint32_t>();
            Duplicate(row, 1000 + i, kRecordPitch / 4);
            Sync<HardEvent::V_S>();
            row.SetValue(0, window_.nonce);
            row.SetValue(1, i + 1);
            Sync<HardEvent::S_MTE3>();
            const uint64_t place = kRecordPlace + i * kRecordPitch;
            Store(At<uint32_t>(pair_.output + place), row, kRecordBytes / 4);
            post_.Post(window_, pair_, place, place, kRecordBytes);
            PipeBarrier<PIPE_ALL>();
        }
        post_.PostTag(MOE_FLAG("end"), window_, pair_, kEndPlace, kEndPlace, 1);
    }

    void Receive(GM_ADDR out, bool ordered) {
        uint32_t record = static_cast<uint32_t>(GetBlockIdx());
        while (true) {
            {
                PollScope poll;
                Look(end_, kEndPlace);
                if (ordered) PipeBarrier<PIPE_MTE2>();
                Look(own_, kRecordPlace + record * kRecordPitch);
                if (ordered) PipeBarrier<PIPE_MTE2>();
                Look(next_, kRecordPlace + (record + 1) * kRecordPitch);
            }
            Sync<HardEvent::MTE2_S>();
            const bool end = Is(end_, 1), own = Is(own_, record + 1), next = Is(next_, record + 2);
            Sync<HardEvent::S_MTE2>();
            if (own && (next || end)) {
                Load(row_.Get<uint32_t>(), At<uint32_t>(Own(kRecordPlace + record * kRecordPitch)),
                     kRecordBytes / 4);
                Sync<HardEvent::MTE2_MTE3>();
                Store(At<uint32_t>(reinterpret_cast<uint64_t>(out) + record * kRecordPitch),
                      row_.Get<uint32_t>(), kRecordBytes / 4);
                PipeBarrier<PIPE_ALL>();
                record += static_cast<uint32_t>(GetBlockNum());
            } else if (end && !own) {
                return;
            } else {
                PollPause(MOE_FLAG("a record"), 1 - window_.rank, record);
            }
        }
    }

 private:
    uint64_t Own(uint64_t place) const { return window_.Data(window_.rank, place); }
    void Look(Calc& at, uint64_t place) {
        Load(at.Get<uint32_t>(), At<uint32_t>(Own(place)), kTagWords);
    }
    bool Is(Calc& at, uint32_t number) {
        const auto flag = at.Get<uint32_t>();
        return flag.GetValue(0) == window_.nonce && flag.GetValue(1) == number;
    }

    Window window_;
    TPipe pipe_;
    RdmaPost post_;
    QueuePair pair_;
    Calc row_, end_, own_, next_;
};

}  // namespace
MINI_CARD(mini_records_send) { Records(context, tables).Send(); }
MINI_CARD(mini_records_at_once) { Records(context, tables).Receive(out, false); }
MINI_CARD(mini_records_in_order) { Records(context, tables).Receive(out, true); }
