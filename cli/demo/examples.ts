/** The documents of the demo: one or two of each type, with something to see in each. */

/** One example. Its id is fixed, so that a second run finds it. */
export interface Example {
  readonly id: string;
  readonly type: "text" | "whiteboard" | "canvas" | "sheet";
  readonly name: string;
  readonly description: string;
  /** In the canonical form. */
  readonly content: string;
  readonly conflictPolicy: "merge" | "lww" | "manual";
  /** Whether everybody of the demo is there; else they come by. */
  readonly isMain: boolean;
}

/** Where the demo makes a conflict, which then waits for somebody to decide. */
export const CONFLICT_EXAMPLE = "demo-agreement";

/** Every example, the busiest first. */
export const EXAMPLES: readonly Example[] = [
  {
    id: "demo-festival",
    type: "text",
    name: "Harbour festival: minutes",
    description: "A text that everybody writes at once. Watch the cursors, type between them.",
    content: "Harbour festival\n\nWhat we know so far:\n",
    conflictPolicy: "merge",
    isMain: true,
  },
  {
    id: "demo-plan",
    type: "whiteboard",
    name: "Harbour festival: site plan",
    description: "A whiteboard with notes and shapes that move while you look.",
    content: JSON.stringify({
      objects: {
        harbour: {
          kind: "rectangle",
          x: 40,
          y: 420,
          width: 900,
          height: 160,
          text: "Harbour",
          "style.fill": "#bae6fd",
          "style.stroke": "#0e7490",
        },
        stage: {
          kind: "ellipse",
          x: 380,
          y: 60,
          width: 220,
          height: 130,
          text: "Main stage",
          "style.fill": "#fecaca",
          "style.stroke": "#be123c",
        },
        parking: {
          kind: "rectangle",
          x: 720,
          y: 60,
          width: 220,
          height: 140,
          text: "Bicycles",
          "style.fill": "#e2e8f0",
          "style.stroke": "#475569",
        },
      },
    }),
    conflictPolicy: "merge",
    isMain: true,
  },
  {
    id: "demo-poster",
    type: "canvas",
    name: "Harbour festival: poster",
    description: "A canvas: the same objects, for a drawing.",
    content: JSON.stringify({
      objects: {
        sun: {
          kind: "ellipse",
          x: 420,
          y: 80,
          width: 140,
          height: 140,
          "style.fill": "#fde68a",
          "style.stroke": "#a16207",
        },
        waves: {
          kind: "path",
          x: 120,
          y: 380,
          width: 720,
          height: 60,
          points: [0, 500, 125, 0, 250, 500, 375, 1000, 500, 500, 625, 0, 750, 500, 875, 1000, 1000, 500],
          "style.stroke": "#1d4ed8",
          "style.strokeWidth": 6,
        },
        title: {
          kind: "note",
          x: 380,
          y: 260,
          width: 220,
          height: 70,
          text: "Harbour festival",
          "style.fill": "#fed7aa",
        },
      },
    }),
    conflictPolicy: "merge",
    isMain: false,
  },
  {
    id: "demo-budget",
    type: "sheet",
    name: "Harbour festival: budget",
    description: "A sheet whose figures are being found out.",
    content: JSON.stringify({
      cells: {
        A1: { value: "Item", "style.bold": true },
        B1: { value: "Planned", "style.bold": true },
        C1: { value: "Spent", "style.bold": true },
        A2: { value: "Stage" },
        A3: { value: "Boats" },
        A4: { value: "Lights" },
        A5: { value: "Food" },
        A6: { value: "Posters" },
        B2: { value: 4000 },
        B3: { value: 1500 },
        B4: { value: 900 },
        B5: { value: 2200 },
        B6: { value: 300 },
      },
      columns: { A: { width: 160 } },
    }),
    conflictPolicy: "lww",
    isMain: false,
  },
  {
    id: CONFLICT_EXAMPLE,
    type: "text",
    name: "Agreement with the harbour master",
    description: "Late edits that meet others wait here for somebody to decide.",
    content: "The quay is ours from noon to midnight. Music ends at ten.\n",
    conflictPolicy: "manual",
    isMain: false,
  },
];

/** Two edits of the agreement that overlap: the second one comes late, having seen version 1. */
export const CONFLICTING_EDITS = [
  { index: 22, delete: 4, insert: "ten in the morning" },
  { index: 22, delete: 16, insert: "sunrise to sunset" },
] as const;

/** What people of the demo write, sentence after sentence. */
export const SENTENCES: readonly string[] = [
  "The boats leave at nine, at noon and at six.",
  "We need two more people for the ticket desk.",
  "The ferry company lends us its old pier.",
  "If it rains, the choir sings in the fish hall.",
  "The lanterns go up on Thursday evening.",
  "Somebody has to ask the harbour master about the crane.",
  "Children under twelve sail for free.",
  "The bakery brings four hundred rolls before eight.",
  "Power for the stage comes from the warehouse.",
  "Last year the queue for coffee was too long.",
  "The band from the island arrives a day early.",
  "We keep one lane open for the fire brigade.",
  "The tide is lowest at a quarter past three.",
  "Posters are ready and want to be hung.",
  "First aid stands beside the lighthouse.",
  "The race starts when the flag goes down.",
  "Please write your name behind the task you take.",
  "The museum opens its cellar for one night only.",
  "Bins, ropes and signs are in the blue container.",
  "We say thank you to everybody with soup on Monday.",
];

/** What they write on notes. */
export const NOTES: readonly string[] = [
  "Coffee",
  "First aid",
  "Tickets",
  "Lost children",
  "Soup",
  "Choir",
  "Water taxi",
  "Lanterns",
  "Tool box",
  "Photo spot",
  "Speeches",
  "Rope here",
];

/** Who they are; more than these are numbered. */
export const PEOPLE: readonly { readonly name: string; readonly color: string }[] = [
  { name: "Ada", color: "#c2410c" },
  { name: "Bjarne", color: "#1d4ed8" },
  { name: "Chiara", color: "#047857" },
  { name: "Dimitri", color: "#6d28d9" },
  { name: "Esi", color: "#be123c" },
  { name: "Farid", color: "#0e7490" },
  { name: "Greta", color: "#4d7c0f" },
  { name: "Hiro", color: "#a21caf" },
];
