import { describe, expect, test } from "vitest";
import { DetailedError } from "tus-js-client";
import { digestOfFile, digestOfZip } from "../src/upload/digest";
import { isLitter } from "../src/upload/dropped-files";
import { groupSlides, type DroppedFile } from "../src/upload/slide-groups";
import { crc32, inOrder, sizeOfZip, zipOf, type PackedFile } from "../src/upload/stored-zip";
import { mayHelpToRetry } from "../src/upload/uploader";

async function sha256Of(data: BufferSource): Promise<string> {
  return [...new Uint8Array(await crypto.subtle.digest("SHA-256", data))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function dropped(contents: Record<string, string>): DroppedFile[] {
  return Object.entries(contents).map(([path, text]) => ({ path, file: new File([text], path.split("/").at(-1)!) }));
}

const dicom = "\0".repeat(128) + "DICM";

describe("SHA-256 in pieces", () => {
  test("equals the published digests", async () => {
    expect((await digestOfFile(new Blob([]))).sha256).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect((await digestOfFile(new Blob(["abc"]))).sha256).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  test("does not depend on where the pieces are cut, and tells its progress to the end", async () => {
    const bytes = Uint8Array.from({ length: 100_003 }, (_, i) => (i * 31) % 251);
    const shares: number[] = [];
    const cut = await digestOfFile(new Blob([bytes]), (share) => shares.push(share), 4096);
    expect(cut.sha256).toBe(await sha256Of(bytes));
    expect(shares.at(-1)).toBe(1);
  });
});

describe("an archive of stored files", () => {
  const bytes = Uint8Array.from({ length: 70_001 }, (_, i) => (i * 7) % 253);
  const files: PackedFile[] = inOrder([
    { name: "M\u00fcller 1.mrxs", file: new Blob(["index"]) },
    { name: "M\u00fcller 1/Data0000.dat", file: new Blob([bytes]) },
    { name: "M\u00fcller 1/Empty.dat", file: new Blob([]) },
  ]);

  test("has the check sum of zip", () => {
    const text = new TextEncoder().encode("123456789");
    expect(crc32(text)).toBe(0xcbf43926);
    expect(crc32(text.slice(4), crc32(text.slice(0, 4)))).toBe(0xcbf43926);
  });

  test("is what the digest said before it was made, to the byte", async () => {
    const shares: number[] = [];
    const digest = await digestOfZip(files, (share) => shares.push(share), 4096);
    const archive = await zipOf(files, digest.checkSums).arrayBuffer();
    expect(archive.byteLength).toBe(sizeOfZip(files));
    expect(digest.sha256).toBe(await sha256Of(archive));
    expect(shares.at(-1)).toBe(1);
  });

  test("is the same whatever the order of the drop", async () => {
    const other = await digestOfZip(inOrder([...files].reverse()));
    expect(other.sha256).toBe((await digestOfZip(files)).sha256);
  });
});

describe("what is one slide", () => {
  test("a file and its folder, a list and its pictures, a series, and ordinary files", async () => {
    const { slides, leftOut } = await groupSlides(
      dropped({
        "day/a.mrxs": "",
        "day/A/Slidedat.ini": "x",
        "day/A/Index.dat": "y",
        "day/b.vms": "[x]\r\nImageFile=b(0,0).jpg\r\nMapFile=b_map.jpg\r\n",
        "day/b(0,0).jpg": "x",
        "day/b_map.jpg": "x",
        "day/holiday.jpg": "x",
        "day/export/1.dcm": dicom,
        "day/export/IM2": dicom,
        "day/export/README": "hello",
        "day/c.svs": "x",
        "day/d.zip": "x",
      }),
    );
    expect(slides.map((slide) => [slide.name, slide.files.map((each) => each.name), slide.problem])).toEqual([
      ["a.mrxs", ["A/Index.dat", "A/Slidedat.ini", "a.mrxs"], ""],
      ["b.vms", ["b(0,0).jpg", "b.vms", "b_map.jpg"], ""],
      ["c.svs", ["c.svs"], ""],
      ["d.zip", ["d.zip"], ""],
      ["export", ["1.dcm", "IM2"], ""],
    ]);
    expect(leftOut).toEqual(["day/holiday.jpg", "day/export/README"]);
  });

  test("an index without what it needs is said at once, and not sent", async () => {
    const { slides } = await groupSlides(dropped({ "a.mrxs": "", "b.vms": "ImageFile=gone.jpg" }));
    expect(slides.map((slide) => slide.problem)).toEqual([
      expect.stringContaining("needs its folder of the same name"),
      expect.stringContaining("needs the picture files"),
    ]);
  });

  test("a file chosen by itself is always sent: the server says what it is", async () => {
    const { slides, leftOut } = await groupSlides(dropped({ "letter.txt": "x", "scan.dcm": dicom }));
    expect(slides.map((slide) => slide.name)).toEqual(["letter.txt", "scan.dcm"]);
    expect(leftOut).toEqual([]);
  });

  test("more files than the server unpacks are refused before they travel", async () => {
    const many = Object.fromEntries(Array.from({ length: 2001 }, (_, i) => [`a/${i}.dat`, ""]));
    const { slides } = await groupSlides(dropped({ "a.mrxs": "", ...many }));
    expect(slides[0]!.problem).toContain("at most 2000");
  });

  test("what an operating system leaves in a folder is not a slide", () => {
    const paths = [".DS_Store", "Thumbs.db", "desktop.ini", "a.svs", "._a.svs", "__MACOSX/a.svs", "day/.hidden/a.svs"];
    expect(paths.map(isLitter)).toEqual([true, true, true, false, true, true, true]);
  });
});

test("a full disk or a refusal is said at once; a busy server is asked again", () => {
  const answered = (status: number) =>
    Object.assign(Object.create(DetailedError.prototype) as DetailedError, { originalResponse: { getStatus: () => status } });
  expect([0, 409, 423, 429, 500, 503].map((status) => mayHelpToRetry(answered(status)))).toEqual(Array(6).fill(true));
  expect([400, 403, 413, 415, 507].map((status) => mayHelpToRetry(answered(status)))).toEqual(Array(5).fill(false));
});
